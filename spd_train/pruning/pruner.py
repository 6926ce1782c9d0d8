"""The pruner: each mask update scores the weights, chooses masks and solves the kept weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.patterns import Pattern, at_sparsity
from spd_train.config import PruneRecipe
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.allocation import global_targets
from spd_train.pruning.calibration import Calibration, input_moments
from spd_train.pruning.importance import (
    GradientScores,
    activation_scores,
    inverse_diagonal,
    magnitudes,
    needs_gradients,
    needs_inputs,
    second_order_scores,
)
from spd_train.pruning.masked_weights import MaskedWeights
from spd_train.pruning.masks import Targets, densities_of, masks_of
from spd_train.pruning.reconstruct import reconstruct
from spd_train.pruning.sensitivity import sensitivity_targets
from spd_train.state_dict import with_prefix

_TARGET, _GRADIENT = "goal/", "gradient/"


class Pruner:
    """Prunes the students of a network to their targets over several mask updates."""

    def __init__(
        self,
        network: GraftedNetwork,
        targets: Targets,
        recipe: PruneRecipe,
        calibration: Calibration,
    ) -> None:
        """Start with dense weights.

        Args:
            network: its students are pruned.
            targets: pattern and final sparsity by matrix name. Their total is met even if the
                allocation is not uniform.
            recipe: importance, allocation and reconstruction.
            calibration: texts for the statistics and the reconstruction.
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
        self._gradients = GradientScores(recipe.importance)
        self._allocated = False

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
        scores = self._scores() if self.recipe.regrow else self._settled(self._scores())
        self._allocate(scores, share)
        at_once = self.recipe.allocation == "global"  # its targets are those of this share already
        masks = masks_of(self.network.encoder, self.targets, scores, 1.0 if at_once else share)
        self.weights.set_masks(masks, regrow=self.recipe.regrow and not last)
        if self.recipe.reconstruct:
            reconstruct(self.network, masks, self.calibration)

    def add_gradients(self) -> None:
        """Add the gradients of a step to the scores, if the importance is made of gradients."""
        if needs_gradients(self.recipe.importance):
            with torch.no_grad():
                self._gradients.add(self.parameters, self.weights.dense())

    def apply_masks(self) -> None:
        """Set pruned weights back to zero after an optimiser step."""
        self.weights.reapply_masks()

    def densities(self) -> dict[str, float]:
        """Share of non-zeros of every matrix of the encoder by name, pruned or not."""
        encoder = self.network.encoder
        return densities_of(
            {m.name: self.network.linear(m.name).weight for m in encoder.matrices()}
        )

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
        moments = input_moments(self.network, self.matrices, self.calibration)
        if importance == "activation":
            return {n: activation_scores(weight, moments[n]) for n, weight in dense.items()}
        known: dict[
            int, Tensor
        ] = {}  # query, key and value share their moments, so the inverse too
        for second_KK in moments.values():
            if id(second_KK) not in known:
                known[id(second_KK)] = inverse_diagonal(second_KK)
        return {
            n: second_order_scores(weight, known[id(moments[n])]) for n, weight in dense.items()
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
