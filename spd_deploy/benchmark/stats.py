"""Percentiles with their 95 % intervals, from samples grouped in rounds.

Runs of one round share a session, a memory layout and whatever the machine did meanwhile, so they
are not independent; rounds are. The bootstrap therefore draws rounds first and runs within them
second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.timing.speed_up import LEVEL, Rounds

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with the ends of its interval, in seconds."""

    value: float
    low: float
    high: float


def samples_for(quantile: float) -> int:
    """Fewest samples that can tell of a quantile: one of them is expected beyond it."""
    return math.ceil(1 / (1 - quantile) - 1e-9)


def estimates(rounds: Rounds, quantiles: Sequence[float], *, seed: int) -> list[Estimate | None]:
    """Each quantile with its bootstrap interval; None where the samples are too few for it."""
    values = np.quantile(np.concatenate([np.asarray(r) for r in rounds]), quantiles)
    drawn_RQ = resampled(rounds, quantiles, seed=seed)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn_RQ, [tail, 1 - tail], axis=0)
    count = sum(map(len, rounds))
    return [
        None
        if count < samples_for(quantile)
        else Estimate(value=float(values[i]), low=float(low[i]), high=float(high[i]))
        for i, quantile in enumerate(quantiles)
    ]


def resampled(rounds: Rounds, quantiles: Sequence[float], *, seed: int) -> NDArray[np.float64]:
    """Quantiles of resampled data, ``[resamples, quantiles]``: rounds drawn, then their runs."""
    random = np.random.default_rng(seed)
    samples = np.concatenate([np.asarray(r, np.float64) for r in rounds])
    lengths = np.array([len(r) for r in rounds])
    starts = np.cumsum(lengths) - lengths
    sizes = np.empty(RESAMPLES, np.intp)
    drawn_RN = np.full((RESAMPLES, len(rounds) * lengths.max()), np.inf)
    for number in range(RESAMPLES):
        chosen = random.integers(len(rounds), size=len(rounds))
        counts = lengths[chosen]
        runs = random.integers(np.repeat(counts, counts)) + np.repeat(starts[chosen], counts)
        sizes[number] = len(runs)
        drawn_RN[number, : len(runs)] = samples[runs]
    return _quantiles_of_rows(drawn_RN, sizes, quantiles)


def _quantiles_of_rows(
    values_RN: NDArray[np.float64], sizes: NDArray[np.intp], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """NumPy's quantiles of the first ``sizes[row]`` values of each row; the rest is infinite."""
    sorted_RN = np.sort(values_RN, axis=1)
    position_RQ = np.outer(sizes - 1, quantiles)
    below_RQ = position_RQ.astype(np.intp)
    above_RQ = np.minimum(below_RQ + 1, sizes[:, None] - 1)
    low_RQ = np.take_along_axis(sorted_RN, below_RQ, axis=1)
    high_RQ = np.take_along_axis(sorted_RN, above_RQ, axis=1)
    return low_RQ + (position_RQ - below_RQ) * (high_RQ - low_RQ)


def median(rounds: Rounds) -> float:
    """Median of the runs of all rounds together."""
    return float(np.median(np.concatenate([np.asarray(r) for r in rounds])))
