"""What a sweep is made of: dense teachers, and cells that are made sparse from them.

Each has one place below the output folder. The run's own folder is the trainer's alone, so what
the sweep keeps of it stands beside it:

    teachers/mrpc/seed-0/                               the run: spd.json says that it is finished
    teachers/mrpc/seed-0.log                            what the process printed
    teachers/mrpc/seed-0.json                           what was asked for, and what it took
    runs/mrpc/block-64x1-0.75/spd/seed-0/ .log .json
"""

from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.patterns import NM, Pattern
from spd_train import recipes

# How a student can be made: the recipes of ``spd train --recipe``.
ARMS = tuple(recipes.ARMS)
DENSE = "dense"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherJob:
    """The dense model of one task and seed, which all cells of both start from."""

    task: str
    seed: int

    @property
    def place(self) -> str:
        """Its folder below the output."""
        return f"teachers/{self.task}/seed-{self.seed}"

    def __str__(self) -> str:
        """Such as ``mrpc dense seed 0``."""
        return f"{self.task} {DENSE} seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentJob:
    """One sparse run of the grid."""

    task: str
    pattern: Pattern
    arm: str
    seed: int

    @property
    def teacher(self) -> TeacherJob:
        """What it starts from."""
        return TeacherJob(task=self.task, seed=self.seed)

    @property
    def place(self) -> str:
        """Its folder below the output."""
        return f"runs/{self.task}/{slug(self.pattern)}/{self.arm}/seed-{self.seed}"

    def __str__(self) -> str:
        """Such as ``mrpc 2:4 spd seed 0``."""
        return f"{self.task} {spelled(self.pattern)} {self.arm} seed {self.seed}"


Job = TeacherJob | StudentJob


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPaths:
    """Where a job's files are."""

    folder: Path

    @classmethod
    def of(cls, output: Path, job: Job) -> "JobPaths":
        """The place of ``job`` below ``output``."""
        return cls(folder=output / job.place)

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """What was asked for, and what it took."""
        return self.folder.with_name(f"{self.folder.name}.json")


def spelled(pattern: Pattern) -> str:
    """A pattern with its sparsity where that is open: ``2:4``, ``block:64x1@0.75``."""
    return str(pattern) if isinstance(pattern, NM) else f"{pattern}@{pattern.sparsity:g}"


def slug(pattern: Pattern) -> str:
    """The pattern as a folder's name: ``2-4``, ``block-64x1-0.75``."""
    return spelled(pattern).replace(":", "-").replace("@", "-")
