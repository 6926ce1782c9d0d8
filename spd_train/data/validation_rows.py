"""Labelled rows to calibrate a finished model on, which it did not learn from."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_train.data.examples import Note, OpenTokenizer, Splits
from spd_train.data.folders import has_split
from spd_train.data.splits import TRAIN, Data, read_data, rows_to_score

VALIDATION = "validation rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationRows:
    """Rows to fit on, and rows to measure on.

    Attributes:
        fit: the rows that a temperature and thresholds are chosen on.
        measured: the rows that the calibration is measured on; the same, where there are no others.
        name: name of the first.
        measured_name: name of the second.
    """

    fit: Splits
    measured: Splits
    name: str
    measured_name: str


def rows_to_calibrate(
    task: Task,
    data_dir: Path | None,
    *,
    holdout: float,
    skip_broken: bool = False,
    note: Note = lambda _: None,
    open_tokenizer: OpenTokenizer | None = None,
) -> CalibrationRows:
    """The validation rows of the model's own data, with its dev rows; of other data all rows.

    Args:
        task: of the model; it may tell which rows were trained on.
        data_dir: a folder or a file; None for the hub or a built-in task.
        holdout: share of train that was set apart when the model was trained.
        skip_broken: leave broken rows out.
        note: reports the rows.
        open_tokenizer: gives the model's tokenizer.

    Raises:
        BadData: a row is wrong, or the model was trained on all rows of this data.
    """
    read = partial(_own_data, task, data_dir, holdout, skip_broken, open_tokenizer)
    if task.trained_on is not None and (own := read()) is not None:
        if not own.holdout:
            raise BadData(
                "the model was trained on all rows of this data, so none is left to calibrate on",
                got="a training without validation rows (--holdout 0)",
                fix="name other labelled rows with --data, or train with a --holdout",
            )
        note(f"{len(own.holdout)} validation rows, which the model was not trained on")
        measured = {part: list(rows) for part, rows in own.dev.items()}
        return CalibrationRows(
            fit={VALIDATION: list(own.holdout)},
            measured=measured,
            name=VALIDATION,
            measured_name=own.dev_name,
        )
    found = rows_to_score(
        task, data_dir, "dev", skip_broken=skip_broken, note=note, open_tokenizer=open_tokenizer
    )
    return CalibrationRows(
        fit=found.parts,
        measured=found.parts,
        name=found.name,
        measured_name=f"{found.name}, the rows it was calibrated on",
    )


def _own_data(
    task: Task,
    data_dir: Path | None,
    holdout: float,
    skip_broken: bool,
    open_tokenizer: OpenTokenizer | None,
) -> Data | None:
    """The data, if it is what the model was trained on."""
    if data_dir is not None and data_dir.is_dir() and not has_split(task, data_dir, TRAIN):
        return None
    data = read_data(
        task, data_dir, holdout=holdout, skip_broken=skip_broken, open_tokenizer=open_tokenizer
    )
    known, found = task.trained_on, data.trained_on
    same = known is not None and found is not None and known.sha256 == found.sha256
    return data if same else None
