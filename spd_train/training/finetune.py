"""Plain fine-tuning on the true labels: how the dense teacher is made."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from spd_deploy.domain.tasks import Task
from spd_train.data.tensors import TensorBatch
from spd_train.model import inputs_of
from spd_train.recipe import TeacherRecipe
from spd_train.training.losses import label_loss
from spd_train.training.schedule import warmup_decay
from spd_train.training.scoring import Samples, score_rows

NO_DECAY = ("bias", "LayerNorm.weight")


class FineTuning:
    """A :class:`spd_train.training.loop.Training` of all of a classifier's weights."""

    name = "teacher"

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        task: Task,
        recipe: TeacherRecipe,
        steps: int,
        samples: Samples,
        pad_id: int,
        device: str,
    ) -> None:
        self.model = model
        nn.Module.to(model, device)
        self.task = task
        self.recipe = recipe
        self.total_steps = steps
        self.samples = samples
        self.pad_id = pad_id
        self.device = device
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self.optimizer: torch.optim.Optimizer = adamw(self.parameters, recipe.weight_decay)

    def prepare(self, step: int) -> dict[str, float | str]:
        """Switch dropout on."""
        self.model.train()
        return {"stage": "teacher"}

    def losses(self, batch: TensorBatch) -> dict[str, Tensor]:
        """Cross-entropy, or squared error, to the labels."""
        return {"label": label_loss(self.logits(batch), batch.labels_B, self.task)}

    def logits(self, batch: TensorBatch) -> Tensor:
        """The classifier's outputs."""
        return self.model(**inputs_of(self.model, batch)).logits  # type: ignore[no-any-return]

    def learning_rate(self, step: int) -> float:
        """Warm-up and linear decay."""
        share = warmup_decay(step, self.total_steps, self.recipe.warmup_share)
        return self.recipe.learning_rate * share

    def after_update(self) -> None:
        """Nothing is constrained."""

    def score(self) -> dict[str, dict[str, float]]:
        """Metrics on the samples of train and dev."""
        self.model.train(mode=False)
        return {
            name: score_rows(self.logits, self.task, rows, pad_id=self.pad_id, device=self.device)
            for name, rows in (("train", self.samples.train), ("dev", self.samples.dev))
        }

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
