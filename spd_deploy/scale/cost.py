"""The cost of classifying a file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCost:
    """The time and work of a file, over all runs where it was resumed.

    Attributes:
        rows: that were answered.
        skipped: broken rows that were left out.
        seconds: from the first row read to the last row written.
        tokens: that the model read, without padding.
        truncated: rows whose text was cut.
        windows: that the texts were read in; 0 where long texts are cut.
    """

    rows: int
    skipped: int
    seconds: float
    tokens: int
    truncated: int
    windows: int = 0

    @property
    def rows_per_s(self) -> float:
        """Rows answered a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """A line for who waited."""
        if not self.rows:
            return "no rows"
        tokens_per_s = self.tokens / self.seconds if self.seconds else 0.0
        share = f" ({100 * self.truncated / self.rows:.1f} %)" if self.truncated else ""
        windows = f" in {self.windows:,} windows" if self.windows else ""
        return (
            f"{self.rows:,} rows{windows} in {self.seconds:,.1f} s: {self.rows_per_s:,.0f} rows/s, "
            f"{tokens_per_s:,.0f} tokens/s, {self.truncated:,} truncated{share}"
        )
