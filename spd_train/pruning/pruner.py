"""The pruner: at each mask update it scores, chooses masks and solves the kept weights again."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.patterns import Pattern, at_sparsity
from spd_train.config import PruneRecipe
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.allocation import global_goals
from spd_train.pruning.calibration import Calibration, input_moments
from spd_train.pruning.importance import (
    GradientScores,
    activation_scores,
    error_rises,
    inverse_diagonal,
    magnitudes,
    needs_gradients,
    needs_inputs,
)
from spd_train.pruning.masked_weights import SparseWeights
from spd_train.pruning.masks import Goals, densities_of, masks_of
from spd_train.pruning.reconstruct import reconstruct
from spd_train.pruning.sensitivity import sensitive_goals
from spd_train.state_dict import with_prefix

_GOAL, _GRADIENT = "goal/", "gradient/"


class Pruner:
    """Takes the students of a network to their goals, update by update."""

    def __init__(
        self,
        network: GraftedNetwork,
        goals: Goals,
        recipe: PruneRecipe,
        calibration: Calibration,
    ) -> None:
        """Prune nothing yet.

        Args:
            network: whose students are pruned.
            goals: the pattern of each matrix to be pruned, at the sparsity wanted of all together.
            recipe: how.
            calibration: texts for the statistics and the reconstruction.
        """
        self.network = network
        self.recipe = recipe
        self.calibration = calibration
        self.wanted = goals
        self.goals: dict[str, Pattern] = dict(goals)
        self.matrices = [m for m in network.encoder.matrices() if m.name in goals]
        students = dict(network.students())
        self.parameters: Mapping[str, nn.Parameter] = {
            m.name: students[m.weight_name] for m in self.matrices
        }
        self.sparse = SparseWeights(self.parameters)
        self._gradients = GradientScores(recipe.importance)
        self._allocated = False

    @property
    def sparsity(self) -> float:
        """Share of zeros over the matrices that are pruned, now."""
        return self.sparse.sparsity

    def tighten(self, share: float, *, last: bool) -> None:
        """New masks at ``share`` of the goals' sparsity; after the ``last`` nothing may return."""
        scores = self._scores() if self.recipe.regrow else self._settled(self._scores())
        self._allocate(scores, share)
        at_once = self.recipe.allocation == "global"  # its goals are those of this share already
        masks = masks_of(self.network.encoder, self.goals, scores, 1.0 if at_once else share)
        self.sparse.set_masks(masks, regrow=self.recipe.regrow and not last)
        if self.recipe.reconstruct:
            reconstruct(self.network, masks, self.calibration)

    def before_update(self) -> None:
        """Take in the gradients of a step, where the scores are made of them."""
        if needs_gradients(self.recipe.importance):
            with torch.no_grad():
                self._gradients.add(self.parameters, self.sparse.dense())

    def after_update(self) -> None:
        """Set masked weights back after the optimiser moved them."""
        self.sparse.after_update()

    def densities(self) -> dict[str, float]:
        """Share of non-zeros of every prunable matrix, pruned or not."""
        encoder = self.network.encoder
        return densities_of(
            {m.name: self.network.linear(m.name).weight for m in encoder.matrices()}
        )

    def verify(self) -> None:
        """The pattern must hold on every matrix before a checkpoint is written.

        Raises:
            VerificationFailed: it does not, which is a fault of ours.
        """
        for name, goal in self.goals.items():
            if not goal.holds(self.parameters[name].detach()):
                raise VerificationFailed(
                    f"{name} does not satisfy {goal} after training",
                    fix="this is a fault of spd; please report it",
                )

    def sparsities(self) -> dict[str, float]:
        """The goal of every prunable matrix; 0 for those left dense."""
        return {
            m.name: self.goals[m.name].sparsity if m.name in self.goals else 0.0
            for m in self.network.encoder.matrices()
        }

    def state(self) -> dict[str, Tensor]:
        """Masks, goals and sums, to be saved."""
        goals = (
            {
                f"{_GOAL}{n}": torch.tensor(g.sparsity, dtype=torch.double)
                for n, g in self.goals.items()
            }
            if self._allocated
            else {}
        )
        gradients = {f"{_GRADIENT}{n}": v for n, v in self._gradients.state().items()}
        return {**self.sparse.state(), **goals, **gradients}

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """The inverse of :meth:`state`."""
        self.sparse.restore(state, device)
        for name, value in with_prefix(_GOAL, state).items():
            self.goals[name] = at_sparsity(self.wanted[name], float(value))
            self._allocated = True
        sums = with_prefix(_GRADIENT, state)
        self._gradients.restore({name: value.to(device) for name, value in sums.items()})

    def _scores(self) -> dict[str, Tensor]:
        """The importance of each weight, those that may return included."""
        dense = self.sparse.dense()
        importance = self.recipe.importance
        if needs_gradients(importance):
            return self._gradients.take(dense)
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
        return {n: error_rises(weight, known[id(moments[n])]) for n, weight in dense.items()}

    def _settled(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores in which what was dropped is below all that is there, so that it stays dropped.

        Nothing else says so: a weight of zero has no movement, and what is there may have less.
        """
        lowest = min(float(score.min()) for score in scores.values())
        floor = lowest - abs(lowest) - 1
        masks = self.sparse.masks
        return {n: s.masked_fill(~masks[n], floor) if masks else s for n, s in scores.items()}

    def _allocate(self, scores: Mapping[str, Tensor], share: float) -> None:
        """Spread the sparsity over the matrices, where it is not the same for all."""
        encoder, recipe = self.network.encoder, self.recipe
        if recipe.allocation == "global":
            self.goals = global_goals(
                encoder, self.wanted, scores, share=share, least_density=recipe.least_density
            )
        elif recipe.allocation == "sensitivity" and not self._allocated:
            self.goals = sensitive_goals(
                self.network,
                self.wanted,
                scores,
                self.calibration,
                least_density=recipe.least_density,
            )
        self._allocated = recipe.allocation != "uniform"
