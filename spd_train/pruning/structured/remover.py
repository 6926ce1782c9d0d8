"""Removes heads and neurons from the students of a network, over several mask updates."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern, Structured, at_sparsity
from spd_deploy.domain.progress import Progress
from spd_train.grafting import GraftedNetwork
from spd_train.prune_recipe import PruneRecipe
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.masks import Targets
from spd_train.pruning.structured.compact import CompactStudents
from spd_train.pruning.structured.curves import (
    Sublayer,
    SublayerCurve,
    removal_curves,
    sublayers_of,
)
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
        self.initial_counts = {u.reader.name: u.left_of(masks) for u in self.sublayers}

    def choose_targets(
        self, masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Pattern], list[SublayerCurve] | None]:
        """The final target of each matrix by name, and the removal curves if they were needed.

        Args:
            masks: the masks so far, by matrix name; empty at the start.
        """
        if self.recipe.keep_layers is not None:
            return self._whole_layers(self.recipe.keep_layers), None
        if self.speed is None and self.recipe.allocation == "uniform":
            return dict(self.targets), None
        curves = removal_curves(self.network, self.sublayers, self.calibration, masks)
        planner = StructurePlanner(
            self.network, self.students, curves, self.calibration, SearchSettings(), self.progress
        )
        if self.speed is None:
            kept = planner.for_sparsity(self._sparsity())
        else:
            kept = planner.for_speed(self.speed)
        return targets_keeping(curves, kept, self.targets), curves

    def masks(
        self,
        before: Mapping[str, Tensor],
        targets: Targets,
        share: float,
        curves: Sequence[SublayerCurve] | None = None,
    ) -> dict[str, Tensor]:
        """New masks ``[N, K]`` by matrix name, at a share of the way from the start to the targets.

        Args:
            before: the masks so far, by matrix name; empty at the start.
            targets: the final target of each matrix.
            share: share of the heads and neurons to remove that are removed now, in (0, 1].
            curves: the removal curves, if they are known as they are now. Otherwise the units to
                remove now are found, and no others.
        """
        counts = {u.reader.name: self._count(u, before, targets, share) for u in self.sublayers}
        if curves is None:
            losing = [u for u in self.sublayers if counts[u.reader.name] < u.left_of(before)]
            curves = removal_curves(self.network, losing, self.calibration, before, least=counts)
        kept = {
            c.sublayer.reader.name: c.curve.keep(counts[c.sublayer.reader.name]) for c in curves
        }
        masks: dict[str, Tensor] = {}
        for sublayer in self.sublayers:
            keep_U = kept.get(sublayer.reader.name, self._alive(sublayer, before))
            for matrix in sublayer.matrices:
                target = targets[matrix.name]
                assert isinstance(target, Structured)  # noqa: S101 - sublayers have no other
                masks[matrix.name] = target.spread(keep_U, matrix.shape)
        self.students.set_masks(masks)
        return masks

    def _alive(self, sublayer: Sublayer, masks: Mapping[str, Tensor]) -> Tensor:
        """Which heads or neurons ``[U]`` the masks keep."""
        alive_U = sublayer.alive(masks)
        if alive_U is None:
            device = self.network.linear(sublayer.reader.name).weight.device
            return torch.ones(sublayer.count, dtype=torch.bool, device=device)
        return alive_U

    def _count(
        self, sublayer: Sublayer, before: Mapping[str, Tensor], targets: Targets, share: float
    ) -> int:
        """How many heads or neurons a sublayer keeps at a share of the way to its target."""
        reader = targets[sublayer.reader.name]
        assert isinstance(reader, Structured)  # noqa: S101 - sublayers have no other
        initial = self.initial_counts[sublayer.reader.name]
        wanted = initial - round(share * (initial - reader.kept(sublayer.count)))
        return min(sublayer.left_of(before), wanted)

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
