"""The data of one run: training rows, the dev split(s), and a hash that tells runs apart.

Where the user's own data has no dev file, a share of train takes its place. The record of what was
trained on (``domain.trained_rows``) lets evaluate, int8 and prune find the same rows again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from typing import Self

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.trained_rows import TrainedRows
from spd_train.data.examples import Example, Note, Splits
from spd_train.data.folders import has_split, own_file
from spd_train.data.read_split import read_split

# Where the user's own data has no dev file, this share of it is held out to measure on.
DEV_SHARE = 0.1
HELD_OUT = "held out of train"
TRAIN = "train"
# More rows than this tell checkpoints apart no better, and would be missed in train.
_MOST_APART = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Examples to train on and to measure on.

    Attributes:
        dev: the examples of each dev file; MNLI has two. Measured on once, at the end.
        holdout: rows kept out of train, on which the best checkpoint is chosen; may be empty.
        dev_name: what the measuring was done on, for the record.
        sha256: a hash of every row in order.
        trained_on: what lets the training rows be known again; goes into the checkpoint.
    """

    train: Sequence[Example]
    dev: Mapping[str, Sequence[Example]]
    dev_name: str
    sha256: str
    holdout: Sequence[Example] = ()
    trained_on: TrainedRows | None = None

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
        """The data with its hash."""
        return cls(
            train=train,
            dev=dev,
            dev_name=dev_name,
            sha256=_sha256_of(train, holdout, *dev.values()),
            holdout=holdout,
            trained_on=trained_on,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Labelled rows to score a model on, and what they are: a split, or a file's name."""

    name: str
    parts: Splits


def read_data(
    task: Task,
    data_dir: Path | None,
    *,
    holdout: float = 0.0,
    skip_broken: bool | None = False,
    note: Callable[[str], None] = lambda _: None,
) -> Data:
    """Train, dev, and a share ``holdout`` of train to choose the best checkpoint on.

    Where the user's own data has no dev file, a tenth of train takes its place. Of a model's own
    task, whose record of training rows is known, it is said how many of dev were trained on.

    Raises:
        BadData: a file, row, column or label is amiss, or there are too few rows.
    """
    parts = read_split(task, data_dir, TRAIN, skip_broken=skip_broken, note=note)
    rows = [example for part in parts.values() for example in part]
    if len(rows) < 3:
        raise BadData("that is too few rows to train on", got=len(rows), fix="add rows")
    sha256 = _sha256_of(rows)
    kept: Sequence[Example] = rows
    if apart := not has_split(task, data_dir, "dev"):
        kept, held = set_apart(rows, DEV_SHARE)
        note(f"no dev file: {len(held)} of {len(rows)} rows are held out to measure on")
        dev: Mapping[str, Sequence[Example]] = {"held_out": held}
    else:
        dev = read_split(task, data_dir, "dev", skip_broken=skip_broken, note=note)
    known = task.trained_on
    same = known is None or known.sha256 == sha256
    _tell_seen(known, [example for part in dev.values() for example in part], note)
    train, chosen_on = set_apart(kept, holdout)
    return Data.of(
        train,
        dev,
        dev_name="dev" if not apart else HELD_OUT if same else f"a tenth of {data_dir}",
        holdout=chosen_on,
        trained_on=TrainedRows.of(
            map(_texts, kept), sha256=sha256, held_out=DEV_SHARE if apart else 0.0
        ),
    )


def rows_to_score(
    task: Task,
    data_dir: Path | None,
    split: str,
    *,
    skip_broken: bool = False,
    note: Note = lambda _: None,
) -> Scored:
    """The rows to score a model of ``task`` on.

    Where ``data_dir`` is the file that the model was trained on, dev is what training held out of
    it. Another file is scored whole, whatever the split is called. Rows that were trained on are
    said to be that.

    Raises:
        BadData: a file, row, column or label is amiss, or there is no such split.
    """
    own = data_dir is not None and not task.files
    if own and data_dir is not None and (split == TRAIN or not has_split(task, data_dir, split)):
        file = _training_file(task, data_dir, split)
        parts = read_split(task, file, TRAIN, skip_broken=skip_broken, note=note)
        scored = _part_of(task, file, data_dir, split, parts, note)
    else:
        parts = read_split(task, data_dir, split, skip_broken=skip_broken, note=note)
        scored = Scored(name=split, parts=parts)
    if scored.name == TRAIN:
        note("these rows were trained on: their scores say nothing of other texts")
    else:
        _tell_seen(task.trained_on, [e for part in scored.parts.values() for e in part], note)
    return scored


def set_apart(rows: Sequence[Example], share: float) -> tuple[Sequence[Example], Sequence[Example]]:
    """``rows`` without, and with only, a random ``share`` of them; the same rows every time.

    Not a matter of the run's seed: teachers, arms and seeds must all leave the same rows out, or
    one would be chosen on what another has learned.
    """
    wanted = max(1, round(len(rows) * share)) if share > 0 else 0
    count = min(len(rows) - 1, wanted, _MOST_APART)
    chosen = set(Random(0).sample(range(len(rows)), count))
    kept = [row for i, row in enumerate(rows) if i not in chosen]
    return kept, [row for i, row in enumerate(rows) if i in chosen]


def _training_file(task: Task, data_dir: Path, split: str) -> Path:
    """The user's file that may be the one that was trained on.

    Raises:
        BadData: neither a file for the split nor one to take it from.
    """
    dividable = split in (TRAIN, "dev")
    if data_dir.is_file():
        if not dividable:
            raise BadData("no such split", got=split, fix="use one of train, dev")
        return data_dir
    return own_file(data_dir, TRAIN if dividable and has_split(task, data_dir, TRAIN) else split)


def _part_of(
    task: Task, file: Path, data_dir: Path, split: str, parts: Splits, note: Note
) -> Scored:
    """What of a file without a dev file beside it is the split."""
    (rows,) = parts.values()
    known = task.trained_on
    if known is not None and known.sha256 == _sha256_of(rows):
        if not known.held_out:
            return Scored(name=TRAIN, parts=parts)
        kept, held = set_apart(rows, known.held_out)
        note(f"{file} is the file that the model was trained on: {len(held)} rows were held out")
        name, part = (TRAIN, kept) if split == TRAIN else (HELD_OUT, held)
        return Scored(name=name, parts={name.replace(" ", "_"): list(part)})
    if data_dir.is_dir() and split != TRAIN:
        own_file(data_dir, split)  # there is none: the error says so
    if known is None and task.name != "unknown":
        note("the model does not record which rows it was trained on; these may be among them")
    return Scored(name=file.name, parts=parts)


def _tell_seen(known: TrainedRows | None, rows: Sequence[Example], note: Note) -> None:
    """Say how many of the rows a model was trained on."""
    if known is not None and (seen := known.seen([_texts(row) for row in rows])):
        note(
            f"about {seen} of {len(rows)} rows to measure on are rows that the model was trained "
            "on: what it scores there says little of other texts"
        )


def _texts(example: Example) -> tuple[str, str | None]:
    """What of an example is known again, whatever its label."""
    return example.text, example.pair


def _sha256_of(*parts: Iterable[Example]) -> str:
    """A hash of every row in order."""
    digest = hashlib.sha256()
    for part in parts:
        for example in part:
            digest.update(json.dumps(astuple(example)).encode())
    return digest.hexdigest()
