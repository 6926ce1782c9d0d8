"""How counts and lists are spelled in sentences."""

from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as ``1 thread`` and ``2 threads``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(parts: Iterable[object], last: str = "and") -> str:
    """Parts in a row, the last one joined with a word: ``a, b and c``."""
    names = [str(part) for part in parts]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
