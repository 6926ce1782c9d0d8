"""The training of the sparse student: pruned, grafted onto its teacher, and distilled.

Huang et al., "Sparse Progressive Distillation", ACL 2022. At every step each part of the student
replaces its teacher's with the schedule's probability. The loss pulls the grafted network towards
the teacher's attention, hidden states and logits, or towards the true labels, with the recipe's
weights. The masks are applied again after every optimiser step. Embeddings and head stay the
teacher's.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from spd_deploy.domain.tasks import Task
from spd_train.config import LossRecipe, StudentRecipe
from spd_train.data.augment import mix_pairs
from spd_train.data.batching import LabelledTokens, TensorBatch
from spd_train.grafting import GraftedNetwork, draw_graft
from spd_train.label_loss import PLAIN, LabelLoss
from spd_train.pruning.pruner import Pruner
from spd_train.training.base import Record, Training
from spd_train.training.context import TrainContext
from spd_train.training.losses import HiddenVariance, hidden_variance, loss_terms
from spd_train.training.schedule import (
    Stages,
    cubic_share,
    graft_probability,
    last_mask_update,
    learning_rate_multiplier,
    mask_update,
)
from spd_train.training.scoring import score_rows


class Objective(nn.Module):
    """The terms of the distillation loss over a part of a step.

    It is a module so that distributed data parallelism can wrap it.
    """

    def __init__(
        self,
        network: GraftedNetwork,
        task: Task,
        recipe: LossRecipe,
        label_loss: LabelLoss = PLAIN,
    ) -> None:
        super().__init__()
        self.label_loss = label_loss
        self.network = network
        self.task = task
        self.recipe = recipe
        self.variance = HiddenVariance(by_layer=())
        self.empty: tuple[int, ...] = ()

    @property
    def needs_teacher(self) -> bool:
        """Whether any term of the loss compares the student with the teacher."""
        return max(self.recipe.attention, self.recipe.hidden, self.recipe.logits) > 0

    def measure_variance(self, batches: Sequence[TensorBatch]) -> None:
        """Measure the variance of the teacher's hidden states, which scales the hidden loss."""
        if self.recipe.hidden:
            self.variance = hidden_variance(
                (self.network.teacher_forward(b), b.mask_BS) for b in batches
            )

    def forward(self, batch: TensorBatch) -> dict[str, Tensor]:
        """The weighted terms of the loss by name, each a scalar."""
        teacher = self.network.teacher_forward(batch) if self.needs_teacher else None
        student = self.network(batch)
        return loss_terms(
            student,
            teacher,
            batch,
            self.task,
            self.recipe,
            self.variance,
            empty=self.empty,
            weighing=self.label_loss,
        )


class Distillation(Training):
    """Prunes, grafts and distils the sparse student."""

    name = "student"

    def __init__(
        self,
        network: GraftedNetwork,
        pruner: Pruner,
        *,
        task: Task,
        recipe: StudentRecipe,
        stages: Stages,
        context: TrainContext,
        label_loss: LabelLoss = PLAIN,
    ) -> None:
        self.network = network
        self.pruner = pruner
        self.recipe = recipe
        self.stages = stages
        self.updates = min(recipe.pruning.updates, stages.prune)
        self.distillation = Objective(network, task, recipe.losses, label_loss)
        super().__init__(
            self.distillation,
            dict(network.student_parameters()),
            task=task,
            context=context,
            total_steps=stages.total,
            weight_decay=recipe.weight_decay,
        )
        self.distillation.measure_variance(pruner.calibration.batches)
        self.distillation.empty = pruner.empty_layers()

    def slow_work(self, step: int) -> str | None:
        """The mask update of this step, if it has one."""
        if update := mask_update(step, self.stages, self.updates):
            return f"mask update {update} of {self.updates}"
        return None

    @property
    def has_gradients(self) -> bool:
        """Whether the draw of this step put at least one part of the student in place."""
        return any(unit.student_in_place for unit in self.network.units)

    def begin_step(self, step: int) -> Record:
        """Update the masks where an update is due, and draw which parts the student takes."""
        if update := mask_update(step, self.stages, self.updates):
            last = update == self.updates
            self.pruner.tighten(cubic_share(update, self.updates), last=last)
            self.distillation.empty = self.pruner.empty_layers()
            self.context.distributed.broadcast(
                [*self.parameters.values(), *self.pruner.weights.state().values()]
            )
        probability = graft_probability(step, self.stages, self.recipe.graft)
        self.compute_in_int8(self.stages.in_int8(step))
        self.network.train(self.recipe.dropout)
        units = len(self.network.units)
        self.network.graft(draw_graft(units, probability, seed=self.context.seed, step=step))
        return {
            "stage": self.stages.at(step),
            "sparsity": self.pruner.sparsity,
            "graft_probability": probability,
        }

    def learning_rate(self, step: int) -> float:
        """The recipe's peak times :func:`learning_rate_multiplier`."""
        recipe = self.recipe
        return recipe.learning_rate * learning_rate_multiplier(
            step, self.stages, recipe.decay, recipe.warmup_share
        )

    def rows_for(self, rows: Sequence[LabelledTokens], step: int) -> Sequence[LabelledTokens]:
        """The batch's rows; a share ``mix_pairs`` of its pairs gets another row's second text."""
        return mix_pairs(
            rows,
            self.recipe.mix_pairs,
            special_ids=self.context.special_ids,
            seed=self.context.seed,
            step=step,
        )

    def clip_gradients(self) -> Tensor:
        """Add the gradients to the importance scores, then clip them. Returns the norm before."""
        self.pruner.add_gradients()
        return super().clip_gradients()

    def optimizer_step(self) -> None:
        """Update the parameters, then set the pruned weights back to zero."""
        super().optimizer_step()
        self.pruner.apply_masks()

    def may_be_best(self, step: int) -> bool:
        """Whether the masks are final after ``step``, and int8 has begun if it is to be learned.

        A less sparse student is no result, nor is one that was scored in another arithmetic.
        """
        in_int8 = not self.stages.int8 or self.stages.in_int8(step)
        return in_int8 and step >= last_mask_update(self.stages, self.updates)

    def compute_in_int8(self, int8: bool) -> None:
        """Let the student round weights and inputs as an int8 artefact does, or no more."""
        if self.stages.int8:
            for linear in self.network.student_linears().values():
                linear.int8 = int8

    def logits(self, batch: TensorBatch) -> Tensor:
        """The student's logits ``[B, C]``, with all its parts in place and without dropout."""
        self.network.eval()
        self.network.graft_all(True)
        return self.network(batch).logits_BC  # type: ignore[no-any-return]

    def teacher_logits(self, batch: TensorBatch) -> Tensor:
        """The teacher's logits ``[B, C]``, without dropout."""
        return self.network.eval().teacher_forward(batch).logits_BC

    def score_teacher(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """Metrics of the teacher on ``rows``, and its ``loss``."""
        return score_rows(
            self.teacher_logits,
            self.task,
            rows,
            pad_id=self.context.pad_id,
            device=self.context.distributed.device,
        )

    def extra_state(self) -> dict[str, Tensor]:
        """The pruner's masks, targets and scores."""
        return self.pruner.state()

    def load_extra_state(self, extra: Mapping[str, Tensor]) -> None:
        """Restore the pruner's masks, targets and scores."""
        self.pruner.restore(extra, self.context.distributed.device)
        self.distillation.empty = self.pruner.empty_layers()
