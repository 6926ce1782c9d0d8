"""The state of each job, and the jobs that may start: pure decisions over the output folder."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_train.sweep.jobs import Job, StudentJob


class JobState(StrEnum):
    """The progress of a job."""

    NEW = "new"
    BEGUN = "begun"
    FINISHED = "finished"


def state_of(folder: Path) -> JobState:
    """The state of a run's folder; ``spd.json`` is written last."""
    if (folder / SPD_FILE).is_file():
        return JobState.FINISHED
    return JobState.BEGUN if folder.is_dir() and any(folder.iterdir()) else JobState.NEW


def startable(
    jobs: Sequence[Job], states: Mapping[Job, JobState], *, busy: Collection[Job]
) -> list[Job]:
    """The jobs that may start now, in order.

    A job may start if it is not finished, not in ``busy`` (running, or failed in this sweep), and
    its teacher is finished.
    """
    return [
        job
        for job in jobs
        if states[job] is not JobState.FINISHED and job not in busy and _has_teacher(job, states)
    ]


def blocked(jobs: Sequence[Job], failed: Collection[Job]) -> list[StudentJob]:
    """The students that cannot start, since their teacher failed."""
    return [job for job in jobs if isinstance(job, StudentJob) and job.teacher in failed]


def _has_teacher(job: Job, states: Mapping[Job, JobState]) -> bool:
    """Whether the teacher of a job is finished; a teacher needs none."""
    return not isinstance(job, StudentJob) or states[job.teacher] is JobState.FINISHED
