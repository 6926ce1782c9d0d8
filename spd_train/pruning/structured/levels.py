"""What a unit may keep, and what that costs: in time by a latency table, or in weights."""

from collections.abc import Callable, Sequence

import numpy as np

from spd_deploy.domain.latency_table import LatencyTable
from spd_train.pruning.structured.allocate import UnitLevels
from spd_train.pruning.structured.curves import UnitCurve

# Steps of neurons where no latency table says which numbers are worthwhile.
_NEURON_STEP = 16


def latency_levels(curves: Sequence[UnitCurve], table: LatencyTable) -> list[UnitLevels]:
    """The worthwhile levels of each unit; their cost is a share of the dense network's time."""

    def cost(curve: UnitCurve, kept: int) -> float:
        unit = curve.unit
        part = table.attention_share if unit.is_attention else table.feed_forward_share
        return part(unit.layer, kept)

    steps = {True: table.head_steps(), False: table.neuron_steps()}
    return [_levels(curve, steps[curve.unit.is_attention], cost) for curve in curves]


def weight_levels(curves: Sequence[UnitCurve]) -> list[UnitLevels]:
    """The levels of each unit; their cost is the number of weights that are kept."""

    def cost(curve: UnitCurve, kept: int) -> float:
        weights = sum(m.shape[0] * m.shape[1] for m in curve.unit.matrices)
        return kept / curve.unit.count * weights

    def steps(curve: UnitCurve) -> Sequence[int]:
        count = curve.unit.count
        return range(count + 1) if curve.unit.is_attention else _steps(count)

    return [_levels(curve, steps(curve), cost) for curve in curves]


def _steps(count: int) -> Sequence[int]:
    """Numbers of neurons, up to all of them."""
    return [*range(0, count, _NEURON_STEP), count]


def _levels(
    curve: UnitCurve, steps: Sequence[int], cost: Callable[[UnitCurve, int], float]
) -> UnitLevels:
    """The levels of a unit at these numbers, as far as that many are left."""
    kept_L = np.array([kept for kept in steps if kept <= curve.left])
    if kept_L[-1] < curve.left:
        kept_L = np.append(kept_L, curve.left)
    return UnitLevels(
        kept_L=kept_L,
        costs_L=np.array([cost(curve, int(kept)) for kept in kept_L]),
        errors_L=curve.curve.error_U.cpu().numpy()[kept_L],
    )
