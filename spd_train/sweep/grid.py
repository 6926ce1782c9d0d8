"""A grid: task x pattern x recipe x seed, and the settings that its runs are trained with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import BUILT_IN
from spd_train.sweep.jobs import Job, StudentJob, TeacherJob, pattern_text

Number = int | float
STUDENTS_ONLY = ("epochs", "max_steps", "learning_rate")
TEACHERS_ONLY = ("teacher_epochs", "teacher_learning_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """The options of ``spd train`` that a grid may set; None leaves the option to the recipe."""

    epochs: Number | None = None
    max_steps: int | None = None
    learning_rate: Number | None = None
    teacher_epochs: Number | None = None
    teacher_learning_rate: Number | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    max_tokens: int | None = None
    holdout: Number | None = None
    precision: str | None = None
    metric: str | None = None
    class_weights: str | None = None
    focal_gamma: Number | None = None
    long_texts: str | None = None
    window_stride: int | None = None
    window_pooling: str | None = None
    max_windows: int | None = None

    def given(self) -> dict[str, Number | str]:
        """The options that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTable:
    """The options of all runs.

    Attributes:
        common: options of every task.
        by_task: options that a task has instead.
    """

    common: TrainOptions = TrainOptions()
    by_task: Mapping[str, TrainOptions] = field(default_factory=dict)

    def of(self, task: str) -> dict[str, Number | str]:
        """The options of one task, by name."""
        return {**self.common.given(), **self.by_task.get(task, TrainOptions()).given()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The runs of a sweep: every task with every pattern, recipe and seed.

    Attributes:
        model: the pretrained encoder, a folder or a name on the Hugging Face hub.
        data: a folder with one folder a task, in GLUE's layout; None for the hub.
        tasks: GLUE tasks.
        patterns: patterns with their sparsity; none for the teachers alone.
        recipes: names of recipes; none for the teachers alone.
        seeds: seeds.
        train: options of the runs.
    """

    model: str
    data: Path | None
    tasks: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    train: TrainTable = TrainTable()

    def teachers(self) -> list[TeacherJob]:
        """The training jobs of the dense models, seed by seed."""
        return [TeacherJob(task=task, seed=seed) for seed, task in product(self.seeds, self.tasks)]

    def students(self) -> list[StudentJob]:
        """The training jobs of the sparse models: all of the first seed, then all of the next."""
        return [
            StudentJob(task=task, pattern=pattern, recipe=recipe, seed=seed)
            for seed, task, pattern, recipe in product(
                self.seeds, self.tasks, self.patterns, self.recipes
            )
        ]

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they start."""
        return [*self.teachers(), *self.students()]

    def options(self, job: Job) -> dict[str, Number | str]:
        """The options of ``spd train`` for one job.

        Options of students are left out for teachers and the reverse, so a change of the students'
        options keeps the teachers.
        """
        excluded = STUDENTS_ONLY if isinstance(job, TeacherJob) else TEACHERS_ONLY
        options = self.train.of(job.task).items()
        return {name: value for name, value in options if name not in excluded}

    def to_json(self) -> dict[str, Any]:
        """The grid as JSON values; of the model only its name."""
        return {
            "model": Path(self.model).name,
            "tasks": list(self.tasks),
            "patterns": [pattern_text(pattern) for pattern in self.patterns],
            "recipes": list(self.recipes),
            "seeds": list(self.seeds),
            "train": {
                "common": self.train.common.given(),
                "by_task": {name: own.given() for name, own in self.train.by_task.items()},
            },
        }


def data_folder(data: Path | None, task: str) -> Path | None:
    """The folder of a task's files; None without ``data``, and for built-in tasks.

    ``STS-B``, ``sts_b`` and ``stsb`` are the same name.

    Raises:
        BadData: ``data`` has no such folder, or several.
    """
    if data is None or task in BUILT_IN:
        return None
    if not data.is_dir():
        raise BadData("no such folder of data", got=data, fix="correct data in the grid, or --data")
    names = sorted(f.name for f in data.iterdir() if f.is_dir() and _key(f.name) == task)
    if len(names) != 1:
        raise BadData(
            f"{data} has no single folder for the task {task}",
            got=", ".join(names) or "none",
            fix=f"name one folder there after the task, such as {task.upper()}",
        )
    return data / names[0]


def _key(name: str) -> str:
    """A name in the form in which :func:`spd_deploy.domain.tasks.task_named` compares it."""
    return name.lower().replace("-", "").replace("_", "")
