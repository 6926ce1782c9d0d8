"""The results of finished runs, read from their ``spd.json`` and ``log.jsonl``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import SPD_FILE, Scores
from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import read_json
from spd_deploy.domain.tasks import task_named
from spd_train.sweep.grid import Grid
from spd_train.sweep.job_state import JobState, state_of
from spd_train.sweep.jobs import DENSE, Job, JobPaths, TeacherJob
from spd_train.sweep.run_record import read_record
from spd_train.training.metrics_log import METRICS_FILE, Record, read_metrics_log

PARTS = ("train", "holdout", "dev")
_FIX = "remove the folder and type spd sweep again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The main metric at one score during training.

    Attributes:
        epoch: epochs since the start.
        train: on a sample of train; None if undefined.
        holdout: on the validation rows, taken from train; None if undefined.
    """

    epoch: float
    train: float | None
    holdout: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The results of one finished run.

    Attributes:
        job: the job.
        metric: the main metric of the task.
        scores: every metric on dev.
        final: metrics of the best checkpoint by part of the data: train, holdout, dev.
        curve: the main metric at each score during training.
        steps: optimiser steps of the run.
        chosen_step: step of the best checkpoint.
        seconds: duration of the process; None if it was not measured.
        peak_memory_bytes: largest resident memory; None if it was not measured.
    """

    job: Job
    metric: str
    scores: Scores
    final: Mapping[str, Scores]
    curve: tuple[Point, ...]
    steps: int | None
    chosen_step: int | None
    seconds: float | None
    peak_memory_bytes: int | None

    @property
    def score(self) -> float | None:
        """The main metric on dev."""
        return self.scores.get(self.metric)

    @property
    def gap(self) -> float | None:
        """The main metric on train minus that on dev, both at the end."""
        train, dev = (self.final[part].get(self.metric) for part in ("train", "dev"))
        return None if train is None or dev is None else train - dev

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "metric": self.metric,
            "scores": dict(self.scores),
            **{part: dict(self.final[part]) for part in PARTS},
            "gap": self.gap,
            "steps": self.steps,
            "chosen_step": self.chosen_step,
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def read_outcomes(grid: Grid, output: Path) -> dict[Job, Outcome]:
    """The results of each finished job of the grid."""
    return {
        job: read_outcome(job, output)
        for job in grid.jobs()
        if state_of(output / job.folder) is JobState.FINISHED
    }


def read_outcome(job: Job, output: Path) -> Outcome:
    """The results of one finished run.

    Raises:
        BadCheckpoint: its files are damaged.
    """
    paths = JobPaths.of(output, job)
    owner = DENSE if isinstance(job, TeacherJob) else "sparse"
    described = read_json(paths.folder / SPD_FILE, error=BadCheckpoint, fix=_FIX)
    records = read_metrics_log(paths.folder / METRICS_FILE)
    record = read_record(paths.record)
    metric = task_named(job.task).metrics[0]
    try:
        final = _last(records, "final")
        return Outcome(
            job=job,
            metric=metric,
            scores=dict(described["scores"][owner]),
            final={part: dict(final.get(part, {})) for part in PARTS},
            curve=_curve(records, metric),
            steps=_last(records, "step")["step"] + 1 if records else None,
            chosen_step=final.get("chosen_step"),
            seconds=record.seconds,
            peak_memory_bytes=record.peak_memory_bytes,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BadCheckpoint(f"{paths.folder} is damaged", got=repr(err), fix=_FIX) from err


def _last(records: list[Record], kind: str) -> Record:
    """The last record of a kind; an empty one if there is none."""
    return next((r for r in reversed(records) if r["kind"] == kind), {})


def _curve(records: list[Record], metric: str) -> tuple[Point, ...]:
    """The main metric at each score."""
    return tuple(
        Point(
            epoch=float(r["epoch"]),
            train=r.get("train", {}).get(metric),
            holdout=r.get("holdout", {}).get(metric),
        )
        for r in records
        if r["kind"] == "score"
    )
