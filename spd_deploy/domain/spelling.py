"""How counts, lists and durations are spelled in sentences."""

from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as ``1 thread`` and ``2 threads``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(parts: Iterable[object], last: str = "and") -> str:
    """Parts in a row, the last one joined with a word: ``a, b and c``."""
    names = [str(part) for part in parts]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def spelled_duration(seconds: float) -> str:
    """A duration for people, such as ``40 s``, ``3 min`` or ``2 h 10 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
