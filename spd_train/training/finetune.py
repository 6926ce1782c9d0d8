"""Fine-tuning on the true labels: how the dense teacher is trained."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_deploy.domain.tasks import Task
from spd_train.config import TeacherRecipe
from spd_train.data.batching import TensorBatch
from spd_train.training.base import Record, Training
from spd_train.training.context import TrainContext
from spd_train.training.losses import label_loss
from spd_train.training.schedule import warmup_decay


class LabelObjective(nn.Module):
    """The loss to the true labels, over a part of a step."""

    def __init__(self, model: PreTrainedModel, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def logits(self, batch: TensorBatch) -> Tensor:
        """The classifier's logits ``[B, C]``."""
        inputs = batch.model_inputs(self.model.config)
        return self.model(**inputs).logits  # type: ignore[no-any-return]

    def forward(self, batch: TensorBatch) -> dict[str, Tensor]:
        """Cross-entropy, or squared error for a regression, under the name ``label``."""
        return {"label": label_loss(self.logits(batch), batch, self.task)}


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
    ) -> None:
        nn.Module.to(model, context.distributed.device)
        self.model = model
        self.recipe = recipe
        self.label_objective = LabelObjective(model, task)
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
        """The recipe's peak times the share of :func:`warmup_decay`."""
        share = warmup_decay(step, self.total_steps, self.recipe.warmup_share)
        return self.recipe.learning_rate * share

    def logits(self, batch: TensorBatch) -> Tensor:
        """Logits ``[B, C]`` without dropout."""
        self.model.train(mode=False)
        return self.label_objective.logits(batch)
