"""How many heads and neurons each layer keeps: the least error within a budget.

Each sublayer, the attention or the feed-forward part of a layer, offers levels: so much kept costs
so much time and makes such an error. Dynamic programming chooses a level for each, such that the
costs fit the budget and the sum of the errors is least (SPDY, Frantar and Alistarh 2022).

L levels of a sublayer, B bins of the budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The budget is divided into this many bins. Costs are rounded up to bins, so the budget holds.
BINS = 4000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SublayerLevels:
    """The levels of one sublayer, from nothing kept to everything kept.

    Attributes:
        kept_L: numbers of heads or neurons.
        costs_L: cost of the sublayer: its share of the dense time, or its number of weights.
        errors_L: error of the sublayer's output, in [0, 1].
    """

    kept_L: NDArray[np.int64]
    costs_L: Floats
    errors_L: Floats


def allocate(
    sublayers: Sequence[SublayerLevels],
    weights: Sequence[float],
    budget: float,
    *,
    bins: int = BINS,
) -> list[int] | None:
    """The level of each sublayer that makes the least sum of weighted errors within the budget.

    Args:
        sublayers: the sublayers and their levels.
        weights: how much the error of each sublayer counts.
        budget: what all sublayers may cost together.
        bins: resolution of the budget.

    Returns:
        The index of each sublayer's level; None if no choice fits the budget.
    """
    if budget <= 0:
        return None
    best_B = np.zeros(bins + 1)
    chosen: list[NDArray[np.int64]] = []
    bins_of = [
        np.ceil(sublayer.costs_L * (bins / budget) - 1e-9).astype(int) for sublayer in sublayers
    ]
    for sublayer, cost_L, weight in zip(sublayers, bins_of, weights, strict=True):
        total_LB = np.full((len(cost_L), bins + 1), np.inf)
        for total_B, cost, error in zip(total_LB, cost_L, sublayer.errors_L, strict=True):
            if cost <= bins:
                total_B[cost:] = best_B[: bins + 1 - cost] + weight * error
        chosen.append(total_LB.argmin(0))
        best_B = total_LB.min(0)
    if not np.isfinite(best_B[bins]):
        return None
    levels, left = [], bins
    for choice_B, cost_L in zip(reversed(chosen), reversed(bins_of), strict=True):
        levels.append(int(choice_B[left]))
        left -= cost_L[levels[-1]]
    return levels[::-1]
