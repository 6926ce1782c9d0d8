"""The configuration of one training run: the task, the data, the recipe, the models, the folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.tasks import Task
from spd_train.config import Recipe
from spd_train.data.splits import Data
from spd_train.run_folder import identity_of


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What to train, from what, to where.

    Attributes:
        model: the pretrained encoder, a folder or a name on the hub.
        teacher: a classifier that is fine-tuned already; None to fine-tune ``model``. Where both
            are given the teacher must be a fine-tuned form of the model.
        resume: go on with what is in ``output``.
        should_stop: asked after each step.
        command: how the run was begun on the command line; it is kept and decides nothing.
    """

    task: Task
    data: Data
    recipe: Recipe
    model: str | None
    teacher: str | None
    output: Path
    resume: bool = False
    should_stop: Callable[[], bool] = lambda: False
    command: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What decides the run's outcome: a resumed run must agree in all of it."""
        return {
            "task": self.task.name,
            "recipe": self.recipe.to_json(),
            "data_sha256": self.data.sha256,
            "model": identity_of(self.model),
            "teacher": identity_of(self.teacher),
        }
