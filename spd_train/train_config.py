"""The configuration of one run: task, data, recipe, models and output folder."""

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
    """What :func:`spd_train.run.run` trains, from what, and where the result goes.

    Attributes:
        task: labels, columns and metrics.
        data: rows to train on, to choose on and to score on.
        recipe: pattern, schedules, losses and sizes.
        model: the pretrained encoder, a folder or a name on the Hugging Face hub.
        teacher: a fine-tuned classifier; None fine-tunes ``model`` first. If both are given, the
            teacher must be a fine-tuned form of the model.
        output: folder to write.
        resume: continue the run that is in ``output``.
        should_stop: called after each step; True saves the state and raises ``Interrupted``.
        command: the options that started the run, kept in ``run.json`` for ``--resume``. They do
            not affect the result.
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
        """All that decides the result, as JSON values. A resumed run must have the same."""
        return {
            "task": self.task.name,
            "recipe": self.recipe.to_json(),
            "data_sha256": self.data.sha256,
            "model": identity_of(self.model),
            "teacher": identity_of(self.teacher),
        }
