"""Plain fine-tuning on the true labels: how the dense teacher is made."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_deploy.domain.tasks import Task
from spd_train.config import TeacherRecipe
from spd_train.data.batching import LabelledTokens, TensorBatch
from spd_train.training.device import Place
from spd_train.training.losses import label_loss
from spd_train.training.schedule import warmup_decay
from spd_train.training.scoring import Scored, score_rows

NO_DECAY = ("bias", "LayerNorm.weight", "layer_norm.weight")


class LabelObjective(nn.Module):
    """The loss to the labels of a part of a step."""

    def __init__(self, model: PreTrainedModel, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def logits(self, batch: TensorBatch) -> Tensor:
        """The classifier's outputs."""
        return self.model(**batch.model_inputs(self.model.config)).logits  # type: ignore[no-any-return]

    def forward(self, batch: TensorBatch) -> dict[str, Tensor]:
        """Cross-entropy, or squared error."""
        return {"label": label_loss(self.logits(batch), batch, self.task)}


class FineTuning:
    """A :class:`spd_train.training.loop.Training` of all of a classifier's weights."""

    name = "teacher"
    moves = True

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        task: Task,
        recipe: TeacherRecipe,
        steps: int,
        place: Place,
    ) -> None:
        self.model = model
        nn.Module.to(model, place.processes.device)
        self.task = task
        self.recipe = recipe
        self.total_steps = steps
        self.place = place
        self.objective = LabelObjective(model, task)
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self.optimizer: torch.optim.Optimizer = adamw(self.parameters, recipe.weight_decay)

    def prepare(self, step: int) -> dict[str, float | str]:
        """Switch dropout on."""
        self.model.train()
        return {"stage": "teacher"}

    def learning_rate(self, step: int) -> float:
        """Warm-up and linear decay."""
        share = warmup_decay(step, self.total_steps, self.recipe.warmup_share)
        return self.recipe.learning_rate * share

    def texts(self, rows: Sequence[LabelledTokens], step: int) -> Sequence[LabelledTokens]:
        """As they are: labels belong to them."""
        return rows

    def before_update(self) -> None:
        """Nothing is made of gradients but updates."""

    def after_update(self) -> None:
        """Nothing is constrained."""

    def eligible(self, step: int) -> bool:
        """Any step's weights may be chosen."""
        return True

    def score(self) -> Scored:
        """Metrics on the samples."""
        place = self.place
        with place.precision.autocast(place.processes.kind):
            return {name: self.score_on(rows) for name, rows in place.samples.parts().items()}

    def score_on(self, rows: Sequence[LabelledTokens]) -> dict[str, float]:
        """Metrics on rows."""
        self.model.train(mode=False)
        place = self.place
        return score_rows(
            self.objective.logits,
            self.task,
            rows,
            pad_id=place.pad_id,
            device=place.processes.device,
        )

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing else is kept."""
        return {}

    def restore(self, extra: Mapping[str, Tensor]) -> None:
        """Nothing else is kept."""


def adamw(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """AdamW with the decay left off biases and layer norms, as BERT was trained."""
    decayed = [p for name, p in parameters.items() if not name.endswith(NO_DECAY)]
    others = [p for name, p in parameters.items() if name.endswith(NO_DECAY)]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=0.0,  # set at every step
    )
