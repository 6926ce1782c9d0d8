"""The training log: one JSON object a line, read by programs and by the figures.

A record has a ``kind``: ``step`` (losses and schedules at one optimiser step), ``score`` (metrics
on samples of train and of the validation rows), or ``final`` (metrics of the best checkpoint). A
resumed run first drops the records after the state that it continues from, so the log is that of an
uninterrupted run.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import not_written, write_text

METRICS_FILE = "log.jsonl"

Record = dict[str, Any]
# Called with the kind, the step and the values of a record.
OnLogged = Callable[[str, int, Mapping[str, Any]], None]


def log_alone(kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Pass a record on to nobody."""


class MetricsLog:
    """Appends records to a file. Each is written to disk when the call returns."""

    def __init__(self, file: Path, *, from_step: int, on_record: OnLogged = log_alone) -> None:
        """Continue ``file`` at ``from_step``: later records are dropped, and 0 drops all.

        ``on_record`` gets each record that is written.
        """
        self.file, self._on_record = file, on_record
        kept = [r for r in read_metrics_log(file) if r["step"] < from_step] if from_step else []
        write_text(file, "".join(_line(record) for record in kept))

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one record.

        Args:
            kind: ``step``, ``score`` or ``final``.
            step: the step, from 0.
            values: further fields.
        """
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(_line({"kind": kind, "step": step, **values}))
        except OSError as err:
            raise not_written(self.file, err) from err
        self._on_record(kind, step, values)


def read_metrics_log(file: Path) -> list[Record]:
    """All records of a log; a last line that a kill cut off is skipped.

    Raises:
        BadCheckpoint: a line is no record.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    whole = lines[:-1]  # what stands after the last line feed was never finished
    try:
        return [json.loads(line) for line in whole]
    except ValueError as err:
        raise BadCheckpoint(f"{file} is damaged", got=err, fix="train again") from err


def final_record(file: Path) -> Record:
    """The scores at the end of a training; empty if it is not finished.

    Raises:
        BadCheckpoint: a line is no record.
    """
    found = [record for record in read_metrics_log(file) if record["kind"] == "final"]
    return found[-1] if found else {}


def _line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; NaN and infinities become null, since JSON has none."""
    return json.dumps({k: _finite(v) for k, v in record.items()}, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with NaN and infinities replaced by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return value
