"""The configuration of one run: task, data, recipe, models and output folder."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.documents import text_of
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.latency_table import LatencyTable
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.structures import Structures
from spd_deploy.domain.tasks import Task
from spd_train.config import Recipe
from spd_train.data.splits import Data
from spd_train.label_loss import PLAIN, LabelLoss
from spd_train.pruning.structured.plan import SpeedTarget
from spd_train.run_folder import identity_of
from spd_train.training.trackers import OnRecord, track_nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The configuration of :func:`spd_train.run.run`.

    Attributes:
        task: labels, columns and metrics.
        data: rows to train on, to choose on and to score on.
        recipe: pattern, schedules, losses and sizes.
        model: folder of the pretrained encoder.
        teacher: a fine-tuned classifier; None fine-tunes ``model`` first. If both are given, the
            teacher must be a fine-tuned form of the model.
        latency: the latency table of the machine that will run the student; needed for a speed-up.
        measure: measures the speed-up of structures on this machine, and returns None where the
            machine is too busy for that; None trusts the table.
        keep_masks: the zeros of a sparse ``model`` stay zero while it is fine-tuned on the labels.
        label_loss: class weights and focal loss, of the teacher and of the student.
        windows: how texts that are longer than the model reads are read; None cuts them.
        metric: chooses the best checkpoint; None leaves that to the task (``Task.chosen_by``).
        start: folder of a sparse student of the same teacher to prune further; None starts from the
            teacher itself.
        output: folder to write.
        resume: continue the run that is in ``output``.
        should_stop: called after each step; True saves the state and raises ``Interrupted``.
        origins: where ``model`` and ``teacher`` were read, if not from a folder that was named.
            Their weights are among the settings.
        track: experiment trackers that get the records of the log.
        on_record: gets them, with the folder of their training; a run sets it by ``track``.
        later_students: students that the command trains after this run, for the estimate of its
            time.
        later_runs: runs with other seeds that it trains after this run, likewise.
        command: the options that started the run, kept in ``run.json`` for ``--resume``. They do
            not affect the result.
    """

    task: Task
    data: Data
    recipe: Recipe
    model: str | None
    teacher: str | None
    output: Path
    latency: LatencyTable | None = None
    measure: Callable[[Structures], float | None] | None = None
    keep_masks: bool = False
    label_loss: LabelLoss = PLAIN
    windows: TextWindows | None = None
    metric: str | None = None
    start: Path | None = None
    resume: bool = False
    should_stop: Callable[[], bool] = lambda: False
    origins: Mapping[str, Origin] = field(default_factory=dict)
    track: tuple[str, ...] = ()
    on_record: OnRecord = track_nothing
    later_students: int = 0
    later_runs: int = 0
    command: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """All that decides the result, as JSON values. A resumed run must have the same."""
        return {
            "task": self.task.name,
            "recipe": self.recipe.to_json(),
            "data_sha256": self.data.sha256,
            "model": identity_of(self.model),
            "teacher": identity_of(self.teacher),
            "latency": None
            if self.latency is None
            else json.loads(text_of(self.latency.to_json())),
            "keep_masks": self.keep_masks,
            "label_loss": self.label_loss.to_json(),
            "windows": None if self.windows is None else asdict(self.windows),
            "metric": self.metric,
            "start": None if self.start is None else identity_of(str(self.start)),
        }

    def recorded_recipe(self) -> dict[str, Any]:
        """The recipe with what fits the labels of this data alone, for the checkpoint.

        A recipe that is read from a checkpoint leaves that out (``spd_train.config.OF_LABELS``).
        """
        labels, loss = self.task.labels, self.label_loss
        soft = sum(isinstance(example.label, tuple) for example in self.data.train)
        found = {
            "class_weights": dict(zip(labels, loss.weights, strict=True)) if loss.weights else None,
            "focal_gamma": loss.focal_gamma or None,
            "metric": self.metric,
            "soft_label_rows": None if self.task.is_multi_label else soft or None,
        }
        return {**self.recipe.to_json(), **{k: v for k, v in found.items() if v is not None}}

    def refuse_unused_texts(self) -> None:
        """Refuse unlabelled texts where nothing is distilled, or where the loss needs labels.

        Raises:
            BadSetting: there is no student, or its loss has a weight for the labels.
        """
        if not self.data.more:
            return
        if self.recipe.pattern is None:
            raise BadSetting(
                "unlabelled texts train the sparse student, and no pattern is given",
                got="--more-texts without --pattern or --speedup",
                fix="add --speedup 3, or leave --more-texts out",
            )
        if (weight := self.recipe.student.losses.label) > 0:
            raise BadSetting(
                "unlabelled texts have no labels to learn",
                got=f"--more-texts with --label-weight {weight:g}",
                fix="use --label-weight 0, or leave --more-texts out",
            )

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """The metrics of which the mean chooses the best checkpoint."""
        return self.task.chosen_by if self.metric is None else (self.metric,)

    def refuse_unused_weights(self) -> None:
        """Refuse class weights and focal loss where no loss compares with the labels.

        Raises:
            BadSetting: the teacher is given, and the student's loss has no weight for the labels.
        """
        if self.label_loss and self.teacher is not None and not self.recipe.student.losses.label:
            raise BadSetting(
                "class weights and focal loss weigh the loss to the labels, and none is trained on",
                got="--teacher with --label-weight 0",
                fix="add --label-weight 1, or give --model in place of --teacher",
            )

    def refuse_pruned_further(self) -> None:
        """Refuse to keep the zeros of a model that is pruned, or that is not there.

        Raises:
            BadSetting: the recipe has a pattern, or a teacher is given in place of a model.
        """
        if self.keep_masks and (self.recipe.pattern is not None or self.teacher is not None):
            got = "--teacher" if self.teacher is not None else f"--pattern {self.recipe.pattern}"
            raise BadSetting(
                "--keep-masks fine-tunes a sparse --model on the labels and removes nothing more",
                got=f"--keep-masks with {got}",
                fix="leave one of the two out",
            )

    @property
    def speed(self) -> SpeedTarget | None:
        """The speed-up that the student has to reach; None if its sparsity is given.

        Raises:
            BadSetting: there is no latency table, or no structures reach the speed-up.
        """
        if self.recipe.speedup is None:
            return None
        if self.latency is None:
            raise BadSetting(
                "a speed-up needs the latency table of a machine",
                got=f"a speed-up of {self.recipe.speedup:g} without a table",
                fix="measure one with spd map --structured",
            )
        return SpeedTarget(factor=self.recipe.speedup, table=self.latency, measure=self.measure)
