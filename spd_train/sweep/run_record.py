"""The record of a run that the sweep keeps beside its folder: settings, time and memory.

The record prevents that runs with earlier settings appear in the table of a grid that was changed.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadCheckpoint, BadSetting
from spd_deploy.domain.files import read_json, write_json
from spd_train.config import TeacherRecipe
from spd_train.recipes import recipe_named
from spd_train.sweep.grid import Grid
from spd_train.sweep.jobs import Job, JobPaths, StudentJob

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """Settings of a run, and what its process took.

    Attributes:
        settings: all that decides the result; empty if no sweep started the run.
        seconds: duration of all attempts together; None if it was not measured.
        peak_memory_bytes: largest resident memory; None if it was not measured.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None


def settings_of(grid: Grid, job: Job) -> dict[str, Any]:
    """The settings of a job that a change of the grid file may change.

    The model counts by its name, so that its folder may be moved. The recipe counts with all its
    fields, since another version of spd may define a recipe differently.
    """
    model = os.path.basename(grid.model.rstrip("/"))
    if isinstance(job, StudentJob):
        settings = {"student": recipe_named(job.recipe, job.pattern).to_json()["student"]}
    else:
        settings = {"teacher": asdict(TeacherRecipe())}
    return {"model": model, **dict(_flat(settings)), **grid.options(job)}


def read_record(file: Path) -> RunRecord:
    """The record in ``file``; an empty one if there is no file."""
    if not file.exists():
        return RunRecord()
    fix = f"remove {file} and the folder beside it, and type the command again"
    document = read_json(file, error=BadCheckpoint, fix=fix)
    return versioned(RunRecord, document, SCHEMA, what=file, error=BadCheckpoint, fix=fix)


def write_record(file: Path, record: RunRecord) -> None:
    """Write the record into ``file``."""
    write_json(file, {"schema": SCHEMA, **asdict(record)})


def with_attempt(record: RunRecord, *, seconds: float, peak_memory_bytes: int | None) -> RunRecord:
    """The record with the time and the memory of another attempt added."""
    peaks = [p for p in (record.peak_memory_bytes, peak_memory_bytes) if p is not None]
    return RunRecord(
        settings=record.settings,
        seconds=(record.seconds or 0.0) + seconds,
        peak_memory_bytes=max(peaks, default=None),
    )


def refuse_other_settings(grid: Grid, output: Path, begun: Iterable[Job]) -> None:
    """Refuse a folder with runs that were started with other settings than the grid's.

    Raises:
        BadSetting: naming the run and the first setting that differs.
    """
    for job in begun:
        paths = JobPaths.of(output, job)
        before, now = read_record(paths.record).settings, settings_of(grid, job)
        if not before:
            continue
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise BadSetting(
                    f"{paths.folder} was started with another {name}",
                    got=f"{_shown(now.get(name))}, it had {_shown(before.get(name))}",
                    fix="put the grid back, choose another --output, or remove that folder",
                )


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every field by its path, such as ``student.graft.start``."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", inner


def _shown(value: object) -> object:
    """A value for an error; ``none`` if there is none."""
    return "none" if value is None else value
