"""What is to be started next: pure decisions over what the output folder holds."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_train.sweep.jobs import Cell, Job


class State(StrEnum):
    """How far a run has come."""

    NEW = "new"
    BEGUN = "begun"
    FINISHED = "finished"


def state_of(folder: Path) -> State:
    """What a run's folder tells: ``spd.json`` is written last."""
    if (folder / SPD_FILE).is_file():
        return State.FINISHED
    return State.BEGUN if folder.is_dir() and any(folder.iterdir()) else State.NEW


def startable(
    jobs: Sequence[Job], states: Mapping[Job, State], *, busy: Collection[Job]
) -> list[Job]:
    """The jobs that may start now, in order.

    Those are neither finished nor ``busy`` (running, or failed in this sweep), and a cell's
    teacher is finished.
    """
    return [
        job
        for job in jobs
        if states[job] is not State.FINISHED and job not in busy and _has_teacher(job, states)
    ]


def blocked(jobs: Sequence[Job], failed: Collection[Job]) -> list[Cell]:
    """The cells whose teacher failed."""
    return [job for job in jobs if isinstance(job, Cell) and job.teacher in failed]


def _has_teacher(job: Job, states: Mapping[Job, State]) -> bool:
    """A teacher needs none."""
    return not isinstance(job, Cell) or states[job.teacher] is State.FINISHED
