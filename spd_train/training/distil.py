"""Sparse Progressive Distillation: the student is pruned and grafted onto its teacher.

Huang et al., "Sparse Progressive Distillation", ACL 2022. At every step each student layer stands
in for its teacher layer with the schedule's probability; the grafted network is pulled towards the
teacher's attention, hidden states and answer; after every update the masks are applied again.
Embeddings, pooler and classifier stay the teacher's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import Task
from spd_train.data.tensors import TensorBatch
from spd_train.network import GraftedNetwork, draw_graft
from spd_train.pruning.masks import apply_masks, densities_of, magnitudes, masks_of, sparsity_of
from spd_train.recipe import SpdRecipe
from spd_train.training.finetune import adamw
from spd_train.training.losses import distillation_losses
from spd_train.training.schedule import (
    Stages,
    cubic_sparsity,
    graft_probability,
    mask_update,
    rewound_decay,
)
from spd_train.training.scoring import Samples, score_rows


class Distillation:
    """A :class:`spd_train.training.loop.Training` of the sparse student layers."""

    name = "distillation"

    def __init__(
        self,
        network: GraftedNetwork,
        *,
        encoder: Encoder,
        pattern: Pattern,
        task: Task,
        recipe: SpdRecipe,
        stages: Stages,
        samples: Samples,
        seed: int,
        pad_id: int,
        device: str,
    ) -> None:
        self.network = network.to(device)
        self.encoder = encoder
        self.pattern = pattern
        self.task = task
        self.recipe = recipe
        self.stages = stages
        self.samples = samples
        self.seed = seed
        self.pad_id = pad_id
        self.device = device
        self.total_steps = stages.total
        self.parameters: Mapping[str, nn.Parameter] = dict(network.students())
        self.optimizer: torch.optim.Optimizer = adamw(self.parameters, recipe.weight_decay)
        self.weights = {m.name: self.parameters[m.weight_name] for m in encoder.matrices()}
        self.masks: dict[str, Tensor] = {}
        self.sparsity = 0.0

    def prepare(self, step: int) -> dict[str, float | str]:
        """Tighten the masks where that is due, and draw the graft."""
        updates = min(self.recipe.mask_updates, self.stages.prune)
        if update := mask_update(step, self.stages, updates):
            self._tighten(cubic_sparsity(update, updates, self.pattern.sparsity))
        probability = graft_probability(step, self.stages, self.recipe.graft_start)
        layers = len(self.network.layers)
        self.network.train()
        self.network.graft(draw_graft(layers, probability, seed=self.seed, step=step))
        return {
            "stage": self.stages.at(step),
            "sparsity": self.sparsity,
            "graft_probability": probability,
        }

    def losses(self, batch: TensorBatch) -> dict[str, Tensor]:
        """The three distances of the grafted network from the teacher."""
        teacher = self.network.teach(batch)
        student = self.network(batch)
        found = distillation_losses(student, teacher, batch.mask_BS, self.task, self.recipe)
        return {"attention": found.attention, "hidden": found.hidden, "logits": found.logits}

    def learning_rate(self, step: int) -> float:
        """Decays over the prune stage, is wound back, and decays over the rest."""
        return self.recipe.learning_rate * rewound_decay(step, self.stages)

    def after_update(self) -> None:
        """The optimiser moved pruned weights too: set them back to zero."""
        apply_masks(self.weights, self.masks)

    def score(self) -> dict[str, dict[str, float]]:
        """Metrics of the student alone on the samples of train and dev."""
        return {
            name: score_rows(self.answer, self.task, rows, pad_id=self.pad_id, device=self.device)
            for name, rows in (("train", self.samples.train), ("dev", self.samples.dev))
        }

    def answer(self, batch: TensorBatch) -> Tensor:
        """The student's logits, all its layers in place and no dropout."""
        self.network.eval()
        self.network.graft([True] * len(self.network.layers))
        return self.network(batch).logits_BC  # type: ignore[no-any-return]

    def densities(self) -> dict[str, float]:
        """Share of non-zero weights by matrix name."""
        return densities_of(self.weights)

    def extra_state(self) -> dict[str, Tensor]:
        """The masks."""
        return dict(self.masks)

    def restore(self, extra: Mapping[str, Tensor]) -> None:
        """Put the masks back."""
        self.masks = {name: mask.to(self.device) for name, mask in extra.items()}
        self.sparsity = sparsity_of(self.masks)

    def _tighten(self, sparsity: float) -> None:
        """New masks at ``sparsity``; what was zero scores lowest, so zeros do not come back."""
        scores = magnitudes(self.weights)
        self.masks = masks_of(self.encoder, self.pattern, scores, sparsity)
        self.sparsity = sparsity_of(self.masks)
        apply_masks(self.weights, self.masks)
