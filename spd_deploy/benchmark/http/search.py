"""The search for the highest rate whose latency stays within a bound: which rate to try next.

Pure functions of what was tried. From most of the capacity it climbs until a rate misses the bound,
and then halves the gap between the highest rate that met it and the lowest that missed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["met", "missed", "not judged"]
# Share of the offline throughput that is tried first, and the step of the climb.
_FIRST = 0.7
_CLIMB = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A rate that was tried, in requests a second, and whether the bound was met."""

    rate: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The highest rate that met the bound and the lowest above it that missed it; None for none.

    A rate that met the bound above one that missed it was lucky and does not count.
    """

    met: float | None
    missed: float | None


def found_by(trials: Sequence[Trial]) -> Found:
    """The bounds of the rate that the trials have shown so far."""
    missed = min((one.rate for one in trials if one.verdict == "missed"), default=None)
    met = [
        one.rate for one in trials if one.verdict == "met" and (missed is None or one.rate < missed)
    ]
    return Found(met=max(met, default=None), missed=missed)


def next_rate(trials: Sequence[Trial], capacity: float) -> float:
    """The rate to try next, where ``capacity`` requests a second are the offline throughput."""
    found = found_by(trials)
    if found.missed is None:
        rate = _FIRST * capacity if found.met is None else _CLIMB * found.met
    else:
        rate = ((found.met or 0.0) + found.missed) / 2
    return float(f"{rate:.3g}")
