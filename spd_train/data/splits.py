"""The data of one run: training rows, the dev split(s), and a hash that tells runs apart."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random
from typing import Self

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_train.data.examples import Example, has_split, read_split

# Where the user's own data has no dev file, this share of it is held out to measure on.
DEV_SHARE = 0.1
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
    """

    train: Sequence[Example]
    dev: Mapping[str, Sequence[Example]]
    dev_name: str
    sha256: str
    holdout: Sequence[Example] = ()

    @classmethod
    def of(
        cls,
        train: Sequence[Example],
        dev: Mapping[str, Sequence[Example]],
        *,
        dev_name: str,
        holdout: Sequence[Example] = (),
    ) -> Self:
        """The data with its hash."""
        digest = hashlib.sha256()
        for part in (train, holdout, *dev.values()):
            for example in part:
                digest.update(json.dumps(astuple(example)).encode())
        return cls(
            train=train,
            dev=dev,
            dev_name=dev_name,
            sha256=digest.hexdigest(),
            holdout=holdout,
        )


def read_data(
    task: Task,
    data_dir: Path | None,
    *,
    holdout: float = 0.0,
    skip_broken: bool | None = False,
    note: Callable[[str], None] = lambda _: None,
) -> Data:
    """Train, dev, and a share ``holdout`` of train to choose the best checkpoint on.

    Where the user's own data has no dev file, a tenth of train takes its place.

    Raises:
        BadData: a file, row, column or label is amiss, or there are too few rows.
    """
    parts = read_split(task, data_dir, "train", skip_broken=skip_broken, note=note)
    rows = [example for part in parts.values() for example in part]
    if len(rows) < 3:
        raise BadData("that is too few rows to train on", got=len(rows), fix="add rows")
    if has_split(task, data_dir, "dev"):
        dev = read_split(task, data_dir, "dev", skip_broken=skip_broken, note=note)
        return _data(rows, dev, dev_name="dev", holdout=holdout)
    kept, held = set_apart(rows, DEV_SHARE)
    note(f"no dev file: {len(held)} of {len(rows)} rows are held out to measure on")
    return _data(kept, {"held_out": held}, dev_name="held out of train", holdout=holdout)


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


def _data(
    rows: Sequence[Example],
    dev: Mapping[str, Sequence[Example]],
    *,
    dev_name: str,
    holdout: float,
) -> Data:
    """The data with a share of train kept out to choose on."""
    train, held = set_apart(rows, holdout)
    return Data.of(train, dev, dev_name=dev_name, holdout=held)
