"""The command line of one run: the one place that knows how ``spd train`` is called."""

from collections.abc import Sequence
from pathlib import Path

from spd_deploy.domain.child import python_module
from spd_train.sweep.grid import Grid, data_folder
from spd_train.sweep.jobs import Job, StudentJob

PROGRAM = tuple(python_module("spd_deploy"))


def train_command(
    job: Job,
    grid: Grid,
    output: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    program: Sequence[str] = PROGRAM,
) -> list[str]:
    """The command line that trains ``job`` into its folder below ``output``."""
    words = [*program, "train", "--task", job.task]
    if (data := data_folder(grid.data, job.task)) is not None:
        words += ["--data", str(data)]
    words += ["--model", grid.model]
    if isinstance(job, StudentJob):
        words += ["--recipe", job.recipe, "--teacher", str(output / job.teacher.folder)]
        words += ["--pattern", str(job.pattern)]
        if not job.pattern.fixed_sparsity:
            words += ["--sparsity", f"{job.pattern.sparsity:g}"]
    for name, value in grid.options(job).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--seed", str(job.seed), "--device", device, "--output", str(output / job.folder)]
    return [*words, "--resume"] if resume else words
