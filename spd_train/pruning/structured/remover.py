"""Removes heads and neurons from the students of a network, over several mask updates."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern, Structured, at_sparsity
from spd_deploy.domain.progress import Progress
from spd_train.grafting import GraftedNetwork
from spd_train.prune_recipe import PruneRecipe
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.masks import Targets
from spd_train.pruning.structured.compact import CompactStudents
from spd_train.pruning.structured.curves import SublayerCurve, removal_curves, sublayers_of
from spd_train.pruning.structured.plan import (
    NOTHING,
    SpeedTarget,
    StructurePlanner,
    targets_keeping,
)
from spd_train.pruning.structured.search import SearchSettings


class StructureRemover:
    """Chooses what each sublayer keeps, and which heads and neurons go at each update.

    From the first update on, the students compute only what is left.
    """

    def __init__(
        self,
        network: GraftedNetwork,
        targets: Targets,
        recipe: PruneRecipe,
        calibration: Calibration,
        *,
        speed: SpeedTarget | None,
        masks: Mapping[str, Tensor],
        progress: Progress,
    ) -> None:
        self.network = network
        self.targets = targets
        self.recipe = recipe
        self.calibration = calibration
        self.speed = speed
        self.progress = progress
        self.students = CompactStudents(network)
        self.students.set_masks(masks)
        self.sublayers = [u for u in sublayers_of(network.encoder) if u.reader.name in targets]
        self.begun = {u.reader.name: u.left_of(masks) for u in self.sublayers}

    def curves(self, masks: Mapping[str, Tensor]) -> list[SublayerCurve]:
        """The removal curves of all sublayers, on the inputs that they have now.

        Args:
            masks: the masks so far; empty at the start.
        """
        return removal_curves(self.network, self.sublayers, self.calibration, masks)

    def choose_targets(self, curves: Sequence[SublayerCurve]) -> dict[str, Pattern]:
        """The final target of each matrix by name."""
        if self.recipe.keep_layers is not None:
            return self._whole_layers(self.recipe.keep_layers)
        if self.speed is None and self.recipe.allocation == "uniform":
            return dict(self.targets)
        planner = StructurePlanner(
            self.network, self.students, curves, self.calibration, SearchSettings(), self.progress
        )
        if self.speed is None:
            kept = planner.for_sparsity(self._sparsity())
        else:
            kept = planner.for_speed(self.speed)
        return targets_keeping(curves, kept, self.targets)

    def masks(
        self, curves: Sequence[SublayerCurve], targets: Targets, share: float
    ) -> dict[str, Tensor]:
        """New masks ``[N, K]`` by matrix name, at a share of the way from the start to the targets.

        Args:
            curves: the removal curves as they are now.
            targets: the final target of each matrix.
            share: share of the heads and neurons to remove that are removed now, in (0, 1].
        """
        masks: dict[str, Tensor] = {}
        for curve in curves:
            sublayer = curve.sublayer
            reader = targets[sublayer.reader.name]
            assert isinstance(reader, Structured)  # noqa: S101 - sublayers have no other
            final = reader.kept(sublayer.count)
            begun = self.begun[sublayer.reader.name]
            count = min(curve.left, begun - round(share * (begun - final)))
            keep_U = curve.curve.keep(count)
            for matrix in sublayer.matrices:
                target = targets[matrix.name]
                assert isinstance(target, Structured)  # noqa: S101 - sublayers have no other
                masks[matrix.name] = target.spread(keep_U, matrix.shape)
        self.students.set_masks(masks)
        return masks

    def _whole_layers(self, count: int) -> dict[str, Pattern]:
        """The targets that keep ``count`` layers, spread evenly, and nothing of the others."""
        layers = self.network.encoder.layers
        if count >= layers:
            raise BadSetting(
                f"the model has {layers} layers",
                got=f"--keep-layers {count}",
                fix="keep fewer layers",
            )
        kept = {round((i + 1) * layers / count) - 1 for i in range(count)}
        return {
            m.name: at_sparsity(self.targets[m.name], NOTHING if m.layer in kept else 1)
            for sublayer in self.sublayers
            for m in sublayer.matrices
        }

    def _sparsity(self) -> float:
        """Share of the weights of all sublayers that the targets prune."""
        sizes = {m.name: m.shape[0] * m.shape[1] for u in self.sublayers for m in u.matrices}
        pruned = sum(size * self.targets[name].sparsity for name, size in sizes.items())
        return pruned / sum(sizes.values())
