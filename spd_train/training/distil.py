"""The training of the sparse student: pruned, grafted onto its teacher, and distilled.

Huang et al., "Sparse Progressive Distillation", ACL 2022. At every step each student part stands in
for its teacher's with the schedule's probability; the grafted network is pulled towards the
teacher's attention, hidden states and answer, or to the true labels, as the recipe weighs them;
after every update the masks are applied again. Embeddings and head stay the teacher's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from spd_deploy.domain.tasks import Task
from spd_train.config import LossRecipe, StudentRecipe
from spd_train.data.augment import mixed
from spd_train.data.batching import LabelledTokens, TensorBatch
from spd_train.grafting import GraftedNetwork, draw_graft
from spd_train.pruning.pruner import Pruner
from spd_train.training.device import Place
from spd_train.training.finetune import adamw
from spd_train.training.losses import Spread, loss_terms, spread_of
from spd_train.training.schedule import (
    Stages,
    cubic_share,
    decayed_share,
    graft_probability,
    last_mask_update,
    mask_update,
)
from spd_train.training.scoring import Scored, score_rows


class Objective(nn.Module):
    """The loss terms of a part of a step, as one module that can run on many processes."""

    def __init__(self, network: GraftedNetwork, task: Task, recipe: LossRecipe) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.recipe = recipe
        self.spread = Spread(hidden=())

    @property
    def has_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return max(self.recipe.attention, self.recipe.hidden, self.recipe.logits) > 0

    def measure_spread(self, batches: Sequence[TensorBatch]) -> None:
        """Measure the unit of the hidden term on calibration texts."""
        if self.recipe.hidden:
            self.spread = spread_of((self.network.teach(b), b.mask_BS) for b in batches)

    def forward(self, batch: TensorBatch) -> dict[str, Tensor]:
        """The weighted terms, by name."""
        teacher = self.network.teach(batch) if self.has_teacher else None
        student = self.network(batch)
        return loss_terms(student, teacher, batch, self.task, self.recipe, self.spread)


class Distillation:
    """A :class:`spd_train.training.loop.Training` of the sparse student."""

    name = "student"

    def __init__(
        self,
        network: GraftedNetwork,
        pruner: Pruner,
        *,
        task: Task,
        recipe: StudentRecipe,
        stages: Stages,
        place: Place,
    ) -> None:
        self.network = network
        self.pruner = pruner
        self.task = task
        self.recipe = recipe
        self.stages = stages
        self.place = place
        self.total_steps = stages.total
        self.updates = min(recipe.pruning.updates, stages.prune)
        self.parameters: Mapping[str, nn.Parameter] = dict(network.students())
        self.optimizer: torch.optim.Optimizer = adamw(self.parameters, recipe.weight_decay)
        self.objective = Objective(network, task, recipe.losses)
        self.objective.measure_spread(pruner.calibration.batches)

    @property
    def moves(self) -> bool:
        """Whether any parameter takes part in the step that was prepared."""
        return any(unit.student_in_place for unit in self.network.units)

    def prepare(self, step: int) -> dict[str, float | str]:
        """Tighten the masks where that is due, and draw the graft."""
        if update := mask_update(step, self.stages, self.updates):
            last = update == self.updates
            self.pruner.tighten(cubic_share(update, self.updates), last=last)
            self.place.processes.same(
                [*self.parameters.values(), *self.pruner.sparse.state().values()]
            )
        probability = graft_probability(step, self.stages, self.recipe.graft)
        self.network.train(self.recipe.dropout)
        units = len(self.network.units)
        self.network.graft(draw_graft(units, probability, seed=self.place.seed, step=step))
        return {
            "stage": self.stages.at(step),
            "sparsity": self.pruner.sparsity,
            "graft_probability": probability,
        }

    def texts(self, rows: Sequence[LabelledTokens], step: int) -> Sequence[LabelledTokens]:
        """As they are, or pairs made up for the teacher to answer."""
        place = self.place
        return mixed(
            rows,
            self.recipe.mix_pairs,
            special_ids=place.special_ids,
            seed=place.seed,
            step=step,
        )

    def learning_rate(self, step: int) -> float:
        """The peak times the schedule's share."""
        recipe = self.recipe
        return recipe.learning_rate * decayed_share(
            step, self.stages, recipe.decay, recipe.warmup_share
        )

    def before_update(self) -> None:
        """Gradients may be scores."""
        self.pruner.before_update()

    def after_update(self) -> None:
        """The optimiser moved pruned weights too: set them back to zero."""
        self.pruner.after_update()

    def eligible(self, step: int) -> bool:
        """The student may be chosen once its masks are final."""
        return step >= last_mask_update(self.stages, self.updates)

    def score(self) -> Scored:
        """Metrics of the student alone on the samples."""
        place = self.place
        with place.precision.autocast(place.processes.kind):
            return {name: self.score_on(rows) for name, rows in place.samples.parts().items()}

    def score_on(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """Metrics of the student alone on rows."""
        place = self.place
        return score_rows(
            self.answer, self.task, rows, pad_id=place.pad_id, device=place.processes.device
        )

    def teacher_score_on(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """Metrics of the teacher on rows."""
        place = self.place
        return score_rows(
            lambda batch: self.network.eval().teach(batch).logits_BC,
            self.task,
            rows,
            pad_id=place.pad_id,
            device=place.processes.device,
        )

    def answer(self, batch: TensorBatch) -> Tensor:
        """The student's logits, all its parts in place and no dropout."""
        self.network.eval()
        self.network.graft_all(True)
        return self.network(batch).logits_BC  # type: ignore[no-any-return]

    def extra_state(self) -> dict[str, Tensor]:
        """Masks and what belongs to them."""
        return self.pruner.state()

    def restore(self, extra: Mapping[str, Tensor]) -> None:
        """Put them back."""
        self.pruner.restore(extra, self.place.processes.device)
