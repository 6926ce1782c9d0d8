"""The record of training rows: who of other rows is known again."""

import json
from dataclasses import asdict, replace

import pytest

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.tasks import TASKS, Task
from spd_deploy.domain.trained_rows import TrainedRows

Text = tuple[str, str | None]


def texts(start: int, stop: int, pair: str | None = None) -> list[Text]:
    return [(f"text {i}", pair) for i in range(start, stop)]


def record(rows: list[Text]) -> TrainedRows:
    return TrainedRows.of(rows, sha256="0", held_out=0.1)


def test_small_training_sets_are_known_exactly() -> None:
    """Each text counts by itself, whatever spaces surround it, and with its second text."""
    known = record(texts(0, 300))

    assert known.seen(texts(290, 320)) == 10
    assert known.seen([(" text 5 ", None)]) == 1
    assert known.seen(texts(0, 300, "another")) == 0


@pytest.mark.parametrize("shared", [0, 1000, 4000])
def test_of_large_training_sets_the_number_is_estimated(shared: int) -> None:
    """Within a few standard errors of how many were trained on; none where none was."""
    known = record(texts(0, 20_000))

    found = known.seen(texts(20_000 - shared, 24_000 - shared))

    assert abs(found - shared) <= 4000 * 0.2 and (found > 0) == (shared > 0)
    assert len(known.hashes) < 10_000


def test_the_record_travels_with_the_task() -> None:
    """It comes back from JSON, older checkpoints have none, and a damaged one is refused."""
    task = replace(TASKS["sst2"], trained_on=record(texts(0, 9)))
    value = json.loads(json.dumps(task.to_json()))

    assert Task.from_json(value) == task
    older = {name: part for name, part in value.items() if name != "trained_on"}
    assert Task.from_json(older) == TASKS["sst2"]
    assert task.trained_on is not None
    with pytest.raises(BadCheckpoint):
        Task.from_json({**value, "trained_on": {**asdict(task.trained_on), "hashes": "abc"}})
