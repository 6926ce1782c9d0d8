"""The pruner: each mask update scores the weights, chooses masks and solves the kept weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.patterns import Pattern, at_sparsity
from spd_deploy.domain.progress import Progress, Silent
from spd_train.grafting import GraftedNetwork
from spd_train.prune_recipe import PruneRecipe
from spd_train.pruning.allocation import global_targets
from spd_train.pruning.calibration import Calibration
from spd_train.pruning.importance import (
    GradientScores,
    activation_scores,
    inverse_diagonal,
    magnitudes,
    needs_gradients,
    needs_inputs,
    second_order_scores,
)
from spd_train.pruning.input_moments import input_moments
from spd_train.pruning.masked_weights import MaskedWeights
from spd_train.pruning.masks import Targets, densities_of, masks_of
from spd_train.pruning.reconstruct import reconstruct
from spd_train.pruning.sensitivity import sensitivity_targets
from spd_train.pruning.structured.plan import SpeedTarget
from spd_train.pruning.structured.remover import StructureRemover
from spd_train.state_dict import with_prefix

_MAX_SPARSITY = 1 - 1e-6
_TARGET, _GRADIENT = "goal/", "gradient/"


def removes_one_at_a_time(targets: Targets, recipe: PruneRecipe) -> bool:
    """Whether heads and neurons are removed one at a time, the rest solved again each time."""
    structured = any(target.structured for target in targets.values())
    return structured and recipe.importance == "second-order"


class Pruner:
    """Prunes the students of a network to their targets over several mask updates."""

    def __init__(
        self,
        network: GraftedNetwork,
        targets: Targets,
        recipe: PruneRecipe,
        calibration: Calibration,
        *,
        speed: SpeedTarget | None = None,
        masks: Mapping[str, Tensor] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Start with dense weights, or with those that a sparse student has.

        Args:
            network: its students are pruned.
            targets: pattern and final sparsity by matrix name. Their total is met even if the
                allocation is not uniform.
            recipe: importance, allocation and reconstruction.
            calibration: texts for the statistics and the reconstruction.
            speed: the speed-up that decides what each layer keeps; None if the targets do.
            masks: masks ``[N, K]`` of what has been pruned before, by matrix name; None for dense
                weights. It stays pruned under the structured pattern.
            progress: reports how the search for what each layer keeps goes.
        """
        self.network = network
        self.recipe = recipe
        self.calibration = calibration
        self.final_targets = targets
        self.targets: dict[str, Pattern] = dict(targets)
        self.matrices = [m for m in network.encoder.matrices() if m.name in targets]
        students = dict(network.student_parameters())
        self.parameters: Mapping[str, nn.Parameter] = {
            m.name: students[m.weight_name] for m in self.matrices
        }
        self.weights = MaskedWeights(self.parameters)
        if masks:
            self.weights.set_masks(masks, regrow=False)
        self._gradients = GradientScores(recipe.importance)
        self._allocated = False
        self._remover: StructureRemover | None = None
        if removes_one_at_a_time(targets, recipe):
            self._remover = StructureRemover(
                network,
                targets,
                recipe,
                calibration,
                speed=speed,
                masks=masks or {},
                progress=progress or Silent(),
            )

    @property
    def sparsity(self) -> float:
        """Share of zeros over the matrices that have targets, now."""
        return self.weights.sparsity

    def tighten(self, share: float, *, last: bool) -> None:
        """Set new masks at a share of the targets' sparsity.

        Args:
            share: share of the final sparsity, in (0, 1].
            last: the masks are final, so no pruned weight can come back.
        """
        masks = self._masks_by_score(share) if self._remover is None else self._remaining(share)
        regrow = self.recipe.regrow and self._remover is None and not last
        self.weights.set_masks(masks, regrow=regrow)
        if self.recipe.reconstruct:
            reconstruct(self.network, masks, self.calibration)

    def _masks_by_score(self, share: float) -> dict[str, Tensor]:
        """The masks that keep the weights with the highest scores."""
        scores = self._scores() if self.recipe.regrow else self._settled(self._scores())
        self._allocate(scores, share)
        at_once = self.recipe.allocation == "global"  # its targets are those of this share already
        return masks_of(self.network.encoder, self.targets, scores, 1.0 if at_once else share)

    def _remaining(self, share: float) -> dict[str, Tensor]:
        """The masks of what is left after heads and neurons were removed one at a time."""
        assert self._remover is not None  # noqa: S101 - the caller knows
        curves = None
        if not self._allocated:
            self.targets, curves = self._remover.choose_targets(self.weights.masks)
            self._allocated = True
        return self._remover.masks(self.weights.masks, self.targets, share, curves)

    def add_gradients(self) -> None:
        """Add the gradients of a step to the scores, if the importance is made of gradients."""
        if needs_gradients(self.recipe.importance):
            with torch.no_grad():
                self._gradients.add(self.parameters, self.weights.dense())

    def apply_masks(self) -> None:
        """Set pruned weights back to zero after an optimiser step."""
        self.weights.reapply_masks()

    @property
    def densities(self) -> dict[str, float]:
        """Share of non-zeros of every matrix of the encoder by name, pruned or not."""
        encoder = self.network.encoder
        return densities_of(
            {m.name: self.network.linear(m.name).weight for m in encoder.matrices()}
        )

    def reached(self, pattern: Pattern) -> Pattern:
        """The pattern at the sparsity over all targets now; below 1 even where nothing is left."""
        return at_sparsity(pattern, min(self.sparsity, _MAX_SPARSITY))

    def empty_layers(self) -> tuple[int, ...]:
        """The layers all of whose matrices are pruned to nothing."""
        masks = self.weights.masks
        layers = {m.layer for m in self.matrices}
        full = {m.layer for m in self.matrices if m.name not in masks or bool(masks[m.name].any())}
        excluded = {m.layer for m in self.network.encoder.matrices() if m not in self.matrices}
        return tuple(sorted(layers - full - excluded))

    def verify(self) -> None:
        """Check that every matrix satisfies its target, before a checkpoint is written.

        Raises:
            VerificationFailed: a matrix does not, which is a fault of spd.
        """
        for name, target in self.targets.items():
            if not target.holds(self.parameters[name].detach()):
                raise VerificationFailed(
                    f"{name} does not satisfy {target} after training",
                    fix="this is a bug in spd; please report it",
                )

    @property
    def sparsities(self) -> dict[str, float]:
        """The target sparsity of every matrix of the encoder by name; 0 for dense ones."""
        return {
            m.name: self.targets[m.name].sparsity if m.name in self.targets else 0.0
            for m in self.network.encoder.matrices()
        }

    def state(self) -> dict[str, Tensor]:
        """Masks, target sparsities and gradient scores, for the saved state."""
        targets = (
            {
                f"{_TARGET}{n}": torch.tensor(g.sparsity, dtype=torch.double)
                for n, g in self.targets.items()
            }
            if self._allocated
            else {}
        )
        gradients = {f"{_GRADIENT}{n}": v for n, v in self._gradients.state().items()}
        return {**self.weights.state(), **targets, **gradients}

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """Restore what :meth:`state` returned, on ``device``."""
        self.weights.restore(state, device)
        if self._remover is not None:
            self._remover.students.set_masks(self.weights.masks)
        for name, value in with_prefix(_TARGET, state).items():
            self.targets[name] = at_sparsity(self.final_targets[name], float(value))
            self._allocated = True
        sums = with_prefix(_GRADIENT, state)
        self._gradients.restore({name: value.to(device) for name, value in sums.items()})

    def _scores(self) -> dict[str, Tensor]:
        """The importance ``[N, K]`` of each weight by matrix name.

        Weights that may come back have scores too.
        """
        dense = self.weights.dense()
        importance = self.recipe.importance
        if needs_gradients(importance):
            return self._gradients.scores(dense)
        if not needs_inputs(importance):
            return magnitudes(dense)
        moments = {
            name: found.second_KK
            for name, found in input_moments(self.network, self.matrices, self.calibration).items()
        }
        if importance == "activation":
            return {n: activation_scores(weight, moments[n]) for n, weight in dense.items()}
        # Query, key and value share their moments, so the inverse too.
        inverses = {id(second_KK): second_KK for second_KK in moments.values()}
        inverses = {key: inverse_diagonal(second_KK) for key, second_KK in inverses.items()}
        return {
            n: second_order_scores(weight, inverses[id(moments[n])]) for n, weight in dense.items()
        }

    def _settled(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores, with pruned weights below all others, so that they stay pruned.

        Without this a pruned weight could come back: it has score 0, and a kept weight may have
        less.
        """
        lowest = min(float(score.min()) for score in scores.values())
        floor = lowest - abs(lowest) - 1
        masks = self.weights.masks
        return {n: s.masked_fill(~masks[n], floor) if masks else s for n, s in scores.items()}

    def _allocate(self, scores: Mapping[str, Tensor], share: float) -> None:
        """Update the target sparsities, if the allocation is not uniform."""
        encoder, recipe = self.network.encoder, self.recipe
        if recipe.allocation == "global":
            self.targets = global_targets(
                encoder, self.final_targets, scores, share=share, least_density=recipe.least_density
            )
        elif recipe.allocation == "sensitivity" and not self._allocated:
            self.targets = sensitivity_targets(
                self.network,
                self.final_targets,
                scores,
                self.calibration,
                least_density=recipe.least_density,
            )
        self._allocated = recipe.allocation != "uniform"
