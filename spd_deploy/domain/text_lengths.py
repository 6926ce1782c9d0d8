"""How long the texts of a file are, in tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from spd_deploy.domain.text import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long texts (or pairs) are in tokens, special ones included, before any is cut.

    Attributes:
        limit: tokens that the model is given at most.
        cut: how many of the texts are longer, and lose their end.
        windowed: how many are longer, and are read in windows of ``limit`` tokens.
    """

    texts: int
    median: int
    longest: int
    cut: int
    limit: int
    windowed: int = 0

    @classmethod
    def of(cls, rows: Sequence[Tokens], *, limit: int) -> "Lengths":
        """The lengths of some rows, at least one, that were cut to ``limit``."""
        whole = sorted(row.n_whole for row in rows)
        return cls(
            texts=len(rows),
            median=whole[len(whole) // 2],
            longest=whole[-1],
            cut=sum(row.dropped > 0 for row in rows),
            windowed=sum(bool(row.overflowing) for row in rows),
            limit=limit,
        )

    def __str__(self) -> str:
        """A sentence for who trains or evaluates."""
        sizes = f"{self.median} tokens in the median, {self.longest} in the longest"
        parts = [sizes]
        if self.windowed:
            parts.append(f"{self._share(self.windowed)} are read in windows of {self.limit} tokens")
        if self.cut:
            parts.append(f"{self._share(self.cut)} are cut at {self.limit} tokens")
        elif not self.windowed:
            parts.append(f"none is cut at {self.limit} tokens")
        return "; ".join(parts)

    def _share(self, count: int) -> str:
        """A number of the texts in words."""
        return f"{count} of {self.texts} ({100 * count / self.texts:.1f} %)"
