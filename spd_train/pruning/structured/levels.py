"""The levels of a sublayer and their costs: in time by a latency table, or in weights."""

from collections.abc import Callable, Sequence

import numpy as np

from spd_deploy.domain.latency_table import LatencyTable
from spd_train.pruning.structured.allocate import SublayerLevels
from spd_train.pruning.structured.curves import SublayerCurve

# Steps of neurons where no latency table says which numbers are worthwhile.
_NEURON_STEP = 16


def latency_levels(curves: Sequence[SublayerCurve], table: LatencyTable) -> list[SublayerLevels]:
    """The worthwhile levels of each sublayer; their cost is a share of the dense network's time."""

    def cost(curve: SublayerCurve, kept: int) -> float:
        sublayer = curve.sublayer
        part = table.attention_share if sublayer.is_attention else table.feed_forward_share
        return part(sublayer.layer, kept)

    steps = {True: table.head_steps(), False: table.neuron_steps()}
    return [_levels(curve, steps[curve.sublayer.is_attention], cost) for curve in curves]


def weight_levels(curves: Sequence[SublayerCurve]) -> list[SublayerLevels]:
    """The levels of each sublayer; their cost is the number of weights that are kept."""

    def cost(curve: SublayerCurve, kept: int) -> float:
        weights = sum(m.shape[0] * m.shape[1] for m in curve.sublayer.matrices)
        return kept / curve.sublayer.count * weights

    def steps(curve: SublayerCurve) -> Sequence[int]:
        count = curve.sublayer.count
        return range(count + 1) if curve.sublayer.is_attention else _steps(count)

    return [_levels(curve, steps(curve), cost) for curve in curves]


def _steps(count: int) -> Sequence[int]:
    """Numbers of neurons, up to all of them."""
    return [*range(0, count, _NEURON_STEP), count]


def _levels(
    curve: SublayerCurve, steps: Sequence[int], cost: Callable[[SublayerCurve, int], float]
) -> SublayerLevels:
    """The levels of a sublayer at these numbers, as far as that many are left."""
    kept_L = np.array([kept for kept in steps if kept <= curve.left])
    if kept_L[-1] < curve.left:
        kept_L = np.append(kept_L, curve.left)
    return SublayerLevels(
        kept_L=kept_L,
        costs_L=np.array([cost(curve, int(kept)) for kept in kept_L]),
        errors_L=curve.curve.error_U.cpu().numpy()[kept_L],
    )
