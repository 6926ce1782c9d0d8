"""What the sweep keeps of a run beside its folder: what was asked for, and what it took.

The record is what keeps a table honest: a grid whose settings were changed does not get the runs
of the earlier settings mixed into its table in silence.
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
    """What was asked for; seconds and peak memory of the process, None where nobody measured.

    The seconds are those of all attempts together.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: int | None = None


def settings_of(grid: Grid, job: Job) -> dict[str, Any]:
    """What decides a run's outcome, of all that a grid file may change without its place.

    The model counts by its name alone, so that its folder may be moved; of the recipe counts what
    trains the job, since a later version may make an arm otherwise.
    """
    model = os.path.basename(grid.model.rstrip("/"))
    if isinstance(job, StudentJob):
        made = {"student": recipe_named(job.arm).to_json()["student"]}
    else:
        made = {"teacher": asdict(TeacherRecipe())}
    return {"model": model, **dict(_flat(made)), **grid.options(job)}


def read_record(file: Path) -> RunRecord:
    """A run's record; an empty one where the run was not started by a sweep."""
    if not file.exists():
        return RunRecord()
    fix = f"remove {file} and the folder beside it, and type the command again"
    document = read_json(file, error=BadCheckpoint, fix=fix)
    return versioned(RunRecord, document, SCHEMA, what=file, error=BadCheckpoint, fix=fix)


def write_record(file: Path, record: RunRecord) -> None:
    """Write a run's record."""
    write_json(file, {"schema": SCHEMA, **asdict(record)})


def added(record: RunRecord, *, seconds: float, peak_memory_bytes: int | None) -> RunRecord:
    """The record after another attempt."""
    peaks = [p for p in (record.peak_memory_bytes, peak_memory_bytes) if p is not None]
    return RunRecord(
        settings=record.settings,
        seconds=(record.seconds or 0.0) + seconds,
        peak_memory_bytes=max(peaks, default=None),
    )


def refuse_other_settings(grid: Grid, output: Path, begun: Iterable[Job]) -> None:
    """No run that is there already may have been made with other settings than the grid's.

    Raises:
        BadSetting: naming the run and the first difference.
    """
    for job in begun:
        place = JobPaths.of(output, job)
        before, now = read_record(place.record).settings, settings_of(grid, job)
        if not before:
            continue
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise BadSetting(
                    f"{place.folder} was begun with another {name}",
                    got=f"{_shown(now.get(name))}, it had {_shown(before.get(name))}",
                    fix="put the grid back, choose another --output, or remove that folder",
                )


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every field by its path: ``student.graft.start``."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", inner


def _shown(value: object) -> object:
    """A value, or that there is none."""
    return "none" if value is None else value
