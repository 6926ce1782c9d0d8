"""How many times as fast one model is as another, with the 95 % interval.

Runs of one round share a session, a memory layout and whatever the machine did meanwhile, so they
are not independent; rounds are. The interval is made from the rounds' own ratios.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95
# A difference below this is called no difference, however narrow its interval.
RESOLUTION = 0.01

Rounds = Sequence[Sequence[float]]
Verdict = Literal["faster", "slower", "no difference shown", "unproven"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedUp:
    """How many times faster than the baseline; below 1 is slower.

    Attributes:
        unproven: why a gain may not be called one of sparsity, where no sparse kernel ran.
    """

    ratio: float
    low: float
    high: float
    unproven: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict that the interval supports."""
        if self.low >= 1 + RESOLUTION:
            return "faster" if self.unproven is None else "unproven"
        if self.high <= 1 / (1 + RESOLUTION):
            return "slower"
        return "no difference shown"

    @property
    def numbers(self) -> str:
        """Such as ``2.3x [2.2, 2.4]``, with a decimal more where the ends would look the same."""
        digits = 1 if self.ratio >= 2 and self.high - self.low >= 0.1 else 2
        return f"{self.ratio:.{digits}f}x [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def __str__(self) -> str:
        """Such as ``faster 2.3x [2.2, 2.4]``."""
        return f"{self.verdict} {self.numbers}"


def speed_up_of(base: Rounds, other: Rounds) -> SpeedUp:
    """Geometric mean of the rounds' ratios of medians, base over other, with its interval.

    Whatever slows the machine for a whole round is in both arms and leaves their ratio alone. What
    comes and goes within a round is not: between two arms all the others may take their turns,
    which with twenty of them is minutes. That makes the ratios differ and the interval wide. The
    interval is Student's, on the logarithms of those ratios: with so few rounds a bootstrap would
    be too sure of itself.
    """
    from scipy import stats

    logs = np.log([np.median(b) / np.median(o) for b, o in zip(base, other, strict=True)])
    center = float(logs.mean())
    spread = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1)) * spread
    return SpeedUp(
        ratio=math.exp(center), low=math.exp(center - reach), high=math.exp(center + reach)
    )
