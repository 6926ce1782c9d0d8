"""Experiment trackers through ``accelerate``: they get the records of ``log.jsonl`` as they come.

A training of one folder is one run of each tracker: the dense teacher's, and the student's. A
tracker that cannot start ends the command before anything is trained. One that fails later is told
once and left out, since a training is worth more than its curve.
"""

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import BadCheckpoint, Unavailable, first_line
from spd_deploy.domain.files import read_json, write_json
from spd_deploy.domain.tracker_names import ALL, PROJECT

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

# What a resumed run needs to continue the run of a tracker; removed when the training is finished.
TRACKERS_FILE = "trackers.json"
# Packages that are installed under another name than the tracker's.
_PACKAGES = {"comet_ml": "comet-ml"}

# Called with the folder of a training, and a record's kind, step and values.
OnRecord = Callable[[Path, str, int, Mapping[str, Any]], None]


def track_nothing(folder: Path, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Drop a record, where no tracker is asked for."""


def installed_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers that are asked for, each once; ``all`` stands for those that are installed.

    Raises:
        Unavailable: one is not installed, or ``all`` and none is.
    """
    from accelerate.tracking import get_available_trackers

    available = [str(getattr(one, "value", one)) for one in get_available_trackers()]
    wanted = [name for name in dict.fromkeys(names) if name != ALL]
    for name in wanted:
        if name not in available:
            package = _PACKAGES.get(name, name)
            raise Unavailable(
                f"--track {name} needs a package that is not installed: {package}",
                fix=f"pip install {package}, or leave --track {name} out",
            )
    if ALL in names:
        wanted = [*wanted, *(name for name in available if name not in wanted)]
        if not wanted:
            raise Unavailable(
                "--track all finds no tracker that is installed", fix="pip install tensorboard"
            )
    return tuple(wanted)


@contextmanager
def tracking(
    names: Sequence[str],
    output: Path,
    settings: Mapping[str, Any],
    *,
    on_cpu: bool,
    note: Callable[[str], None],
) -> Iterator[OnRecord]:
    """Pass records on to trackers until the end of the block.

    Args:
        names: the trackers, all of them installed.
        output: the folder of the run, after which the trackers' runs are called.
        settings: what decides the result; stored with each run of a tracker.
        on_cpu: whether the training runs on the CPU.
        note: gets a line for each tracker that fails.
    """
    if not names:
        yield track_nothing
        return
    from accelerate.state import PartialState

    PartialState(cpu=on_cpu)  # the trackers' own messages need to know the processes
    found = _Tracking(names, output, settings, note)
    try:
        yield found
    finally:
        found.finish()


class _Tracking:
    """The open runs of the trackers: those of one folder at a time, as some allow one alone."""

    def __init__(
        self,
        names: Sequence[str],
        output: Path,
        settings: Mapping[str, Any],
        note: Callable[[str], None],
    ) -> None:
        self._names, self._output, self._note = list(names), output, note
        self._settings = {k: v for k, v in flat(settings) if not k.startswith("latency/")}
        self._folder: Path | None = None
        self._open: dict[str, GeneralTracker] = {}

    def __call__(self, folder: Path, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Pass on the numbers of a record, by names such as ``score/holdout/accuracy``."""
        if folder != self._folder:
            first = self._folder is None
            self.finish()
            self._folder = folder
            self._start(folder, step, must=first)
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in flat(values)
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for name, tracker in list(self._open.items()):
            with self._left_out_if_it_fails(name, "failed"):
                tracker.log(numbers, step=step)

    def finish(self) -> None:
        """Close the open runs."""
        for name, tracker in list(self._open.items()):
            with self._left_out_if_it_fails(name, "did not close its run"):
                tracker.finish()
        self._open = {}

    def _start(self, folder: Path, step: int, *, must: bool) -> None:
        """Open a run of each tracker, or continue it where the training is resumed.

        Raises:
            Unavailable: one could not start, and nothing was tracked before.
        """
        runs = _runs_in(folder) if step > 0 else {}
        for name in list(self._names):
            try:
                self._open[name] = self._started(name, folder, step, runs)
            except Exception as err:
                if must:
                    raise Unavailable(
                        f"--track {name} could not start",
                        got=first_line(err),
                        fix=f"set {name} up as its documentation says, or leave --track {name} out",
                    ) from err
                self._leave_out(name, "could not start", err)
        write_json(folder / TRACKERS_FILE, runs)

    def _started(
        self, name: str, folder: Path, step: int, runs: dict[str, str]
    ) -> "GeneralTracker":
        """One tracker with its run; ``runs`` gets what continues it."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        called = self._output.resolve().name
        title = called if folder == self._output else f"{called}-{folder.name}"
        kind = LOGGER_TYPE_TO_CLASS[name]
        resumed = runs.get(name)
        match name:
            case "tensorboard":
                tracker = kind(title, self._output / name, purge_step=step)
            case "mlflow":
                tracker = kind(PROJECT, run_id=resumed, run_name=title)
            case "wandb":
                runs[name] = resumed or uuid.uuid4().hex[:16]
                tracker = kind(PROJECT, name=title, id=runs[name], resume="allow")
            case "trackio":
                runs[name] = resumed or f"{title}-{uuid.uuid4().hex[:8]}"
                tracker = kind(PROJECT, name=runs[name], resume="allow")
            case _ if kind.requires_logging_directory:
                tracker = kind(title, self._output / name)
            case _:
                tracker = kind(title)
        tracker.start()
        if name == "mlflow":
            runs[name] = tracker.tracker.info.run_id
        runs.setdefault(name, title)
        if resumed is None:
            tracker.store_init_configuration(self._settings)
        return tracker

    @contextmanager
    def _left_out_if_it_fails(self, name: str, what: str) -> Iterator[None]:
        """Go on without a tracker that fails in the block."""
        try:
            yield
        except Exception as err:  # noqa: BLE001 - any error of the tracker's own library
            self._leave_out(name, what, err)

    def _leave_out(self, name: str, what: str, err: Exception) -> None:
        """Say once that a tracker gets no more records."""
        self._open.pop(name, None)
        self._names = [one for one in self._names if one != name]
        self._note(f"warning: {name} {what} and gets no more records: {first_line(err)}")


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of nested mappings, by the path to them; None is left out.

    A list becomes text, as trackers store settings.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}/")
        elif isinstance(value, bool | int | float | str):
            yield f"{before}{name}", value
        elif value is not None:
            yield f"{before}{name}", str(value)


def _runs_in(folder: Path) -> dict[str, str]:
    """The runs of trackers in a folder, to be continued; empty where nothing was tracked."""
    file = folder / TRACKERS_FILE
    if not file.is_file():
        return {}
    return dict(read_json(file, error=BadCheckpoint, fix=f"remove {file}"))
