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

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Examples to train on and to measure on.

    Attributes:
        dev: the examples of each dev file; MNLI has two.
        dev_name: what the measuring was done on, for the record.
        sha256: a hash of every row in order.
    """

    train: Sequence[Example]
    dev: Mapping[str, Sequence[Example]]
    dev_name: str
    sha256: str

    @classmethod
    def of(
        cls, train: Sequence[Example], dev: Mapping[str, Sequence[Example]], *, dev_name: str
    ) -> Self:
        """The data with its hash."""
        digest = hashlib.sha256()
        for part in (train, *dev.values()):
            for example in part:
                digest.update(json.dumps(astuple(example)).encode())
        return cls(train=train, dev=dev, dev_name=dev_name, sha256=digest.hexdigest())


def read_data(
    task: Task,
    data_dir: Path | None,
    *,
    skip_broken: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Data:
    """Train and dev; where the user's own data has no dev file, a tenth of train is held out.

    Raises:
        BadData: a file, row, column or label is amiss, or there are too few rows.
    """
    parts = read_split(task, data_dir, "train", skip_broken=skip_broken, note=note)
    rows = [example for part in parts.values() for example in part]
    if len(rows) < 2:
        raise BadData("one row is too few to train on", got=len(rows), fix="add rows")
    if has_split(task, data_dir, "dev"):
        dev = read_split(task, data_dir, "dev", skip_broken=skip_broken, note=note)
        return Data.of(rows, dev, dev_name="dev")
    shuffled = Random(0).sample(rows, len(rows))
    held = max(1, round(len(rows) * HELD_OUT_SHARE))
    note(f"no dev file: {held} of {len(rows)} training rows are held out to measure on")
    return Data.of(shuffled[held:], {"held_out": shuffled[:held]}, dev_name="held out of train")
