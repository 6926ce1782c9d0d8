"""Fine-tuning on the true labels: of the dense teacher, or of a sparse model whose zeros stay."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_deploy.domain.tasks import Task
from spd_train.config import TeacherRecipe
from spd_train.data.batching import TensorBatch
from spd_train.label_loss import PLAIN, LabelLoss
from spd_train.pruning.masks import Masks, apply_masks
from spd_train.training.base import Record, Training
from spd_train.training.context import TrainContext
from spd_train.training.losses import label_loss
from spd_train.training.schedule import warmup_decay


class LabelObjective(nn.Module):
    """The loss to the true labels, over a part of a step."""

    def __init__(self, model: PreTrainedModel, task: Task, label_loss: LabelLoss = PLAIN) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.label_loss = label_loss

    def logits(self, batch: TensorBatch) -> Tensor:
        """The classifier's logits ``[B, C]``, pooled where texts are read in windows."""
        inputs = batch.model_inputs(self.model.config)
        return batch.pooled(self.model(**inputs).logits)

    def forward(self, batch: TensorBatch) -> dict[str, Tensor]:
        """The loss to the labels, under the name ``label``."""
        return {"label": label_loss(self.logits(batch), batch, self.task, self.label_loss)}


class FineTuning(Training):
    """Trains all weights of a classifier with AdamW and a linear warm-up and decay."""

    name = "teacher"

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        task: Task,
        recipe: TeacherRecipe,
        steps: int,
        context: TrainContext,
        masks: Masks | None = None,
        label_loss: LabelLoss = PLAIN,
    ) -> None:
        """Train every parameter.

        Args:
            model: the classifier.
            task: the task of its labels.
            recipe: learning rate and decay.
            steps: number of optimiser steps.
            context: devices, precision and samples.
            masks: masks ``[N, K]`` by matrix name, True for weights that are trained. The others
                are set back to zero after each step. None or no mask trains all.
            label_loss: class weights and focal loss.
        """
        nn.Module.to(model, context.distributed.device)
        self.model = model
        self.recipe = recipe
        device = context.distributed.device
        self.masks = {name: mask.to(device) for name, mask in (masks or {}).items()}
        self.label_objective = LabelObjective(model, task, label_loss)
        super().__init__(
            self.label_objective,
            dict(model.named_parameters()),
            task=task,
            context=context,
            total_steps=steps,
            weight_decay=recipe.weight_decay,
        )

    def begin_step(self, step: int) -> Record:
        """Switch dropout on, which an evaluation between steps switches off."""
        self.model.train()
        return {"stage": "teacher"}

    def learning_rate(self, step: int) -> float:
        """The recipe's peak times :func:`warmup_decay`."""
        share = warmup_decay(step, self.total_steps, self.recipe.warmup_share)
        return self.recipe.learning_rate * share

    def optimizer_step(self) -> None:
        """Update the parameters, then set the weights that a mask removed back to zero."""
        super().optimizer_step()
        weights = {name: self.parameters[f"{name}.weight"] for name in self.masks}
        apply_masks(weights, self.masks)

    def logits(self, batch: TensorBatch) -> Tensor:
        """Logits ``[B, C]`` without dropout."""
        self.model.train(mode=False)
        return self.label_objective.logits(batch)
