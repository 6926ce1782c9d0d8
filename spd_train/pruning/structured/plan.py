"""The heads and neurons that each layer keeps at the end: found once, before the first is removed.

speed-up       the least error within a share of the dense time, by the machine's latency table
weights        the least error within a number of weights (``--allocation global``)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.latency_table import LatencyTable
from spd_deploy.domain.patterns import Pattern, at_sparsity
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.structures import Structures
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.masks import Targets
from spd_train.pruning.structured.allocate import SublayerLevels
from spd_train.pruning.structured.compact import CompactStudents
from spd_train.pruning.structured.curves import SublayerCurve
from spd_train.pruning.structured.levels import latency_levels, weight_levels
from spd_train.pruning.structured.search import SearchSettings, search, trials_at_most
from spd_train.pruning.structured.trial import Trials

# A sparsity must be above 0; this one prunes nothing.
NOTHING = 1e-6
# A search is repeated where the measured speed-up is further from the wanted one than this.
_CLOSE = 0.02
_MOST_SEARCHES = 3
# A corrected speed-up stays below the fastest one by the table.
_NEAR = 0.98


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedTarget:
    """How much faster than dense a student has to be, and by which table.

    Attributes:
        factor: the speed-up, above 1.
        table: the latency table of the machine that will run the student.
        measure: measures the speed-up of a network with given structures; None where the machine
            is too busy for that. The search is repeated with a corrected budget where its result
            is not as fast as the table says. None trusts the table.
    """

    factor: float
    table: LatencyTable
    measure: Callable[[Structures], float | None] | None = None

    def __post_init__(self) -> None:
        """Refuse a speed-up that no structures reach."""
        refuse_unreachable(self.table, self.factor)


class StructurePlanner:
    """Searches structures for a network; every candidate is tried on calibration texts."""

    def __init__(
        self,
        network: GraftedNetwork,
        students: CompactStudents,
        curves: Sequence[SublayerCurve],
        calibration: Calibration,
        settings: SearchSettings,
        progress: Progress,
    ) -> None:
        self.encoder = network.encoder
        self.curves = curves
        self.settings = settings
        self.progress = progress
        self._trials = Trials(network, students, curves, calibration)

    def for_speed(self, speed: SpeedTarget) -> list[int]:
        """The heads or neurons that each sublayer keeps to be as fast as ``speed`` says."""
        levels = latency_levels(self.curves, speed.table)
        factor = speed.factor
        for _ in range(_MOST_SEARCHES):
            kept = self._search(levels, 1 / factor - speed.table.base_share)
            if speed.measure is None:
                return kept
            measured = speed.measure(self.structures(kept))
            if measured is None:
                return kept
            self.progress.note(f"measured {measured:.2f} times as fast as dense")
            if abs(measured / speed.factor - 1) <= _CLOSE:
                break
            factor = min(factor * speed.factor / measured, _NEAR * speed.table.fastest_speedup)
        return kept

    def structures(self, kept: Sequence[int]) -> Structures:
        """The structures of the encoder whose sublayers keep so many; other sublayers are whole."""
        encoder = self.encoder
        heads, neurons = [encoder.heads] * encoder.layers, [encoder.intermediate] * encoder.layers
        for curve, count in zip(self.curves, kept, strict=True):
            (heads if curve.sublayer.is_attention else neurons)[curve.sublayer.layer] = count
        return Structures(heads=tuple(heads), neurons=tuple(neurons))

    def for_sparsity(self, sparsity: float) -> list[int]:
        """The heads or neurons that each sublayer keeps at a ``sparsity`` of all weights."""
        levels = weight_levels(self.curves)
        dense = sum(m.shape[0] * m.shape[1] for c in self.curves for m in c.sublayer.matrices)
        return self._search(levels, (1 - sparsity) * dense)

    def _search(self, levels: Sequence[SublayerLevels], budget: float) -> list[int]:
        """The best candidate within the budget, which always has one: keeping nothing is free."""
        total = trials_at_most(len(levels), self.settings)
        with self.progress.stage("allocate", total) as advance:
            found = search(
                levels,
                budget,
                self._trials.distance,
                self.settings,
                rough=self._trials.rough_distance,
                advance=lambda: advance(),
            )
        assert found is not None  # noqa: S101 - every sublayer may keep nothing, at no cost
        self.progress.note(f"heads and neurons of each layer: {self.structures(found.kept)}")
        return list(found.kept)


def refuse_unreachable(table: LatencyTable, speedup: float) -> None:
    """Refuse a speed-up that no structures reach.

    Raises:
        BadSetting: the network without any head and neuron would be slower than that.
    """
    fastest = table.fastest_speedup
    if not 1 < speedup < fastest:
        raise BadSetting(
            "no structured model of this size is so much faster than dense here"
            if speedup > 1
            else "a speed-up must be above 1",
            got=f"--speedup {speedup:g}; without any head and neuron it would be {fastest:.1f} "
            f"times as fast, at {', '.join(map(str, table.shapes))} on {table.where}",
            fix="name a lower --speedup, or a larger shape with --at",
        )


def targets_keeping(
    curves: Sequence[SublayerCurve], kept: Sequence[int], targets: Targets
) -> dict[str, Pattern]:
    """The targets of matrices whose sublayers keep so many heads or neurons.

    Args:
        curves: the sublayers.
        kept: of each sublayer.
        targets: the pattern of each matrix by name, at any sparsity.
    """
    return {
        matrix.name: _keeping(targets[matrix.name], count, curve.sublayer.count)
        for curve, count in zip(curves, kept, strict=True)
        for matrix in curve.sublayer.matrices
    }


def _keeping(target: Pattern, kept: int, count: int) -> Pattern:
    """A target that keeps so many of ``count``; all of them is a sparsity too small to prune."""
    return at_sparsity(target, 1 - kept / count if kept < count else NOTHING)
