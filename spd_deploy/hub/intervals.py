"""How far a score of a sample may be from that of all texts: 95 % intervals from the rows alone."""

import math

LEVEL = 0.95
_Z = 1.959964  # of a normal distribution, two-sided at the level


def interval_of(metric: str, value: float, rows: int) -> tuple[float, float] | None:
    """The interval of a score; None for a metric that has none by its rows alone, such as F1.

    Accuracy has Wilson's (1927); Pearson's correlation that of Fisher's transformation.
    """
    match metric:
        case "accuracy":
            return _wilson(value, rows)
        case "pearson" if rows > 3 and abs(value) < 1:
            half = _Z / math.sqrt(rows - 3)
            return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
        case _:
            return None


def _wilson(share: float, rows: int) -> tuple[float, float]:
    """The score interval of a share of right answers."""
    square = _Z**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    spread = math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    half = _Z * spread / (1 + square / rows)
    return max(0.0, middle - half), min(1.0, middle + half)
