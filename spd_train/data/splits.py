"""The data of one run: rows to train on, to choose on and to score on, and their hash.

If the user's own data has no dev file, a share of train takes its place. The checkpoint records
what was trained on (``domain.trained_rows``), so that evaluate, int8 and prune can tell these rows
again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.trained_rows import TrainedRows
from spd_train.data.examples import Example, Note, OpenTokenizer, Splits
from spd_train.data.folders import has_split, own_files
from spd_train.data.read_split import read_split

# If the user's own data has no dev file, this share of it becomes dev.
DEV_SHARE = 0.1
DEV_FROM_TRAIN = "dev, a tenth of the file"
TRAIN = "train"
# More validation rows choose no better checkpoint, and would be missing in train.
_MAX_HELD_OUT = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Examples to train on, to choose on and to score on.

    Attributes:
        train: training rows.
        dev: rows of each dev file; MNLI has two. They are scored once, at the end.
        dev_name: name of the dev rows, for the record.
        sha256: hash of all rows in order.
        holdout: validation rows, taken from train: the best checkpoint is chosen on them. May be
            empty.
        trained_on: record by which the training rows are recognised; stored in the checkpoint.
        more: unlabelled rows that the student is trained on beside ``train``; the teacher labels
            them.
    """

    train: Sequence[Example]
    dev: Mapping[str, Sequence[Example]]
    dev_name: str
    sha256: str
    holdout: Sequence[Example] = ()
    trained_on: TrainedRows | None = None
    more: Sequence[Example] = ()

    @classmethod
    def of(
        cls,
        train: Sequence[Example],
        dev: Mapping[str, Sequence[Example]],
        *,
        dev_name: str,
        holdout: Sequence[Example] = (),
        trained_on: TrainedRows | None = None,
    ) -> Self:
        """The data, with the hash of its rows."""
        return cls(
            train=train,
            dev=dev,
            dev_name=dev_name,
            sha256=_sha256_of(train, holdout, *dev.values()),
            holdout=holdout,
            trained_on=trained_on,
        )

    def with_more(self, rows: Sequence[Example]) -> Self:
        """The data with unlabelled rows for the student, which count in the hash."""
        sha256 = hashlib.sha256(f"{self.sha256} {_sha256_of(rows)}".encode()).hexdigest()
        return replace(self, more=tuple(rows), sha256=sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRows:
    """Labelled rows to score a model on.

    Attributes:
        name: name of the split or of the file.
        parts: the rows by part.
    """

    name: str
    parts: Splits


def read_data(
    task: Task,
    data_dir: Path | None,
    *,
    holdout: float = 0.0,
    skip_broken: bool | None = False,
    note: Note = lambda _: None,
    open_tokenizer: OpenTokenizer | None = None,
) -> Data:
    """Train, dev, and a share ``holdout`` of train to choose the best checkpoint on.

    If the user's own data has no dev file, a tenth of train takes its place. If the task comes from
    a model that records its training rows, the number of dev rows that it was trained on is
    reported.

    Args:
        task: names files, columns and labels.
        data_dir: a folder or a file; None for the hub or a built-in task.
        holdout: share of train, in [0, 1).
        skip_broken: skip broken rows; None if the user has no such option.
        note: reports the rows.
        open_tokenizer: gives the model's tokenizer; a text without a token for it is a broken row.

    Raises:
        BadData: a file, row, column or label is wrong, or there are too few rows.
    """
    read = partial(
        read_split, task, skip_broken=skip_broken, note=note, open_tokenizer=open_tokenizer
    )
    parts = read(data_dir, TRAIN)
    rows = [example for part in parts.values() for example in part]
    if len(rows) < 3:
        raise BadData("there are too few rows to train on", got=len(rows), fix="add rows")
    sha256 = _sha256_of(rows)
    kept: Sequence[Example] = rows
    if without_dev := not has_split(task, data_dir, "dev"):
        kept, held = hold_out(rows, DEV_SHARE)
        note(f"no dev file: a tenth of the rows becomes dev, {len(held)} of {len(rows)}")
        dev: Mapping[str, Sequence[Example]] = {"dev": held}
    else:
        dev = read(data_dir, "dev")
    known = task.trained_on
    same = known is None or known.sha256 == sha256
    _warn_of_leakage(known, [example for part in dev.values() for example in part], note)
    train, validation = hold_out(kept, holdout)
    return Data.of(
        train,
        dev,
        dev_name="dev" if not without_dev else DEV_FROM_TRAIN if same else f"a tenth of {data_dir}",
        holdout=validation,
        trained_on=TrainedRows.of(
            map(_texts, kept), sha256=sha256, held_out=DEV_SHARE if without_dev else 0.0
        ),
    )


def rows_to_score(
    task: Task,
    data_dir: Path | None,
    split: str,
    *,
    skip_broken: bool = False,
    note: Note = lambda _: None,
    open_tokenizer: OpenTokenizer | None = None,
    group_column: str | None = None,
) -> ScoringRows:
    """The rows to score a model of ``task`` on.

    If ``data_dir`` is the file that the model was trained on, dev is the tenth that was not trained
    on. Another file is scored as a whole, with every split. Rows that were trained on are reported.

    Raises:
        BadData: a file, row, column or label is wrong, or there is no such split.
    """
    own = data_dir is not None and not task.files
    read = partial(
        read_split,
        task,
        skip_broken=skip_broken,
        note=note,
        open_tokenizer=open_tokenizer,
        group_column=group_column,
    )
    if own and data_dir is not None and (split == TRAIN or not has_split(task, data_dir, split)):
        files = _training_files(task, data_dir, split)
        parts = read(files[0] if len(files) == 1 else data_dir, TRAIN)
        scored = _part_of(task, files, data_dir, split, parts, note)
    else:
        parts = read(data_dir, split)
        scored = ScoringRows(name=split, parts=parts)
    if scored.name == TRAIN:
        note("these rows were trained on: their scores say nothing of other texts")
    else:
        _warn_of_leakage(task.trained_on, [e for part in scored.parts.values() for e in part], note)
    return scored


def hold_out(rows: Sequence[Example], share: float) -> tuple[Sequence[Example], Sequence[Example]]:
    """``rows`` without a random share of them, and that share; the same rows every time.

    The run's seed has no influence: all teachers, students and seeds must leave out the same rows,
    or one would be chosen on rows that another was trained on.
    """
    target = max(1, round(len(rows) * share)) if share > 0 else 0
    count = min(len(rows) - 1, target, _MAX_HELD_OUT)
    chosen = set(Random(0).sample(range(len(rows)), count))
    kept = [row for i, row in enumerate(rows) if i not in chosen]
    return kept, [row for i, row in enumerate(rows) if i in chosen]


def _training_files(task: Task, data_dir: Path, split: str) -> list[Path]:
    """The user's file, or its shards, that the model may have been trained on.

    Raises:
        BadData: there is no file for the split, and none to take it from.
    """
    dividable = split in (TRAIN, "dev")
    if data_dir.is_file():
        if not dividable:
            raise BadData("no such split", got=split, fix="use one of train, dev")
        return [data_dir]
    return own_files(data_dir, TRAIN if dividable and has_split(task, data_dir, TRAIN) else split)


def _part_of(
    task: Task, files: Sequence[Path], data_dir: Path, split: str, parts: Splits, note: Note
) -> ScoringRows:
    """The rows of a split, from a file that has no dev file beside it."""
    (rows,) = parts.values()
    file = files[0] if len(files) == 1 else data_dir
    known = task.trained_on
    if known is not None and known.sha256 == _sha256_of(rows):
        if not known.held_out:
            return ScoringRows(name=TRAIN, parts=parts)
        kept, held = hold_out(rows, known.held_out)
        note(f"{file} is the file that the model was trained on: its dev rows are {len(held)}")
        name, part = (TRAIN, kept) if split == TRAIN else (DEV_FROM_TRAIN, held)
        return ScoringRows(name=name, parts={split: list(part)})
    if data_dir.is_dir() and split != TRAIN:
        own_files(data_dir, split)  # there is none: the error says so
    if known is None and task.name != "unknown":
        note("the model does not record which rows it was trained on; these may be among them")
    return ScoringRows(name=file.name, parts=parts)


def _warn_of_leakage(known: TrainedRows | None, rows: Sequence[Example], note: Note) -> None:
    """Report how many of the rows to score on the model was trained on."""
    if known is not None and (seen := known.seen([_texts(row) for row in rows])):
        note(
            f"about {seen} of {len(rows)} rows to measure on are rows that the model was trained "
            "on: what it scores there says little of other texts"
        )


def _texts(example: Example) -> tuple[str, str | None]:
    """The texts of an example, by which it is recognised whatever its label is."""
    return example.text, example.pair


def _sha256_of(*parts: Iterable[Example]) -> str:
    """A hash of all rows in order."""
    digest = hashlib.sha256()
    for part in parts:
        for example in part:
            digest.update(json.dumps([example.text, example.pair, example.label]).encode())
    return digest.hexdigest()
