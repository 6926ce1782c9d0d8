"""The jobs of a sweep: dense teachers, and sparse students that are made from them.

Each job has a folder below the output folder. The trainer alone writes into it; the sweep's own
files are beside it:

    teachers/mrpc/seed-0/                               the run; spd.json says that it is finished
    teachers/mrpc/seed-0.log                            output of the process
    teachers/mrpc/seed-0.json                           settings, time and memory
    runs/mrpc/block-64x1-0.75/spd/seed-0/ .log .json
"""

from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.patterns import Pattern

DENSE = "dense"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherJob:
    """Training of the dense model of one task and seed, from which its students start."""

    task: str
    seed: int

    @property
    def folder(self) -> str:
        """Its folder, relative to the output folder."""
        return f"teachers/{self.task}/seed-{self.seed}"

    def __str__(self) -> str:
        """The job for people, such as ``mrpc dense seed 0``."""
        return f"{self.task} {DENSE} seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentJob:
    """Training of one sparse model."""

    task: str
    pattern: Pattern
    recipe: str
    seed: int

    @property
    def teacher(self) -> TeacherJob:
        """The teacher that it is distilled from."""
        return TeacherJob(task=self.task, seed=self.seed)

    @property
    def folder(self) -> str:
        """Its folder, relative to the output folder."""
        return f"runs/{self.task}/{slug(self.pattern)}/{self.recipe}/seed-{self.seed}"

    def __str__(self) -> str:
        """The job for people, such as ``mrpc 2:4 spd seed 0``."""
        return f"{self.task} {pattern_text(self.pattern)} {self.recipe} seed {self.seed}"


Job = TeacherJob | StudentJob


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPaths:
    """The paths of a job's files.

    Attributes:
        folder: folder of the run.
    """

    folder: Path

    @classmethod
    def of(cls, output: Path, job: Job) -> "JobPaths":
        """The paths of ``job`` below ``output``."""
        return cls(folder=output / job.folder)

    @property
    def log(self) -> Path:
        """File with the output of the process."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """File with the settings, the time and the memory of the run."""
        return self.folder.with_name(f"{self.folder.name}.json")


def pattern_text(pattern: Pattern) -> str:
    """A pattern, with its sparsity if the pattern leaves it open: ``2:4``, ``block:64x1@0.75``."""
    return str(pattern) if pattern.fixed_sparsity else f"{pattern}@{pattern.sparsity:g}"


def slug(pattern: Pattern) -> str:
    """The pattern as the name of a folder: ``2-4``, ``block-64x1-0.75``."""
    return pattern_text(pattern).replace(":", "-").replace("@", "-")
