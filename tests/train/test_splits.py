"""Rows held out of train: the same ones every time, and never trained on."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import TASKS, Task, own_task
from spd_train.data.examples import Example
from spd_train.data.splits import ScoringRows, hold_out, read_data, rows_to_score

OWN = own_task(text_column="text", pair_column=None, label_column="label", labels=("a", "b"))


@given(count=st.integers(3, 300), share=st.floats(0, 0.99))
def test_rows_are_parted(count: int, share: float) -> None:
    """Every row is on one side, in its order; at least one is kept, and one is held if asked."""
    rows = [Example(text=str(i), label=0) for i in range(count)]

    kept, held = hold_out(rows, share)

    assert sorted([*kept, *held], key=lambda e: int(e.text)) == rows
    assert not {e.text for e in kept} & {e.text for e in held}
    assert [int(e.text) for e in kept] == sorted(int(e.text) for e in kept)
    assert len(kept) >= 1
    assert len(held) == (0 if share == 0 else min(count - 1, max(1, round(count * share))))
    assert hold_out(rows, share) == (kept, held)


def test_no_more_rows_are_held_than_tell_apart() -> None:
    """A large training set loses 2000 rows at most."""
    rows = [Example(text=str(i), label=0) for i in range(30_000)]

    assert len(hold_out(rows, 0.5)[1]) == 2000


def test_holding_out_changes_the_hash() -> None:
    """A run with other rows to choose on is another run; dev stays what it was."""
    task = TASKS["opinions"]

    whole, parted = read_data(task, None), read_data(task, None, holdout=0.1)

    assert whole.sha256 != parted.sha256
    assert whole.dev == parted.dev and not whole.holdout
    assert len(parted.train) + len(parted.holdout) == len(whole.train)


def written(file: Path, texts: range) -> Path:
    """A file with these texts."""
    file.parent.mkdir(exist_ok=True)
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in texts)
    file.write_text(f"text,label\n{rows}")
    return file


def trained(data_dir: Path, holdout: float = 0.1) -> Task:
    """The task as it stands in the checkpoint of a model that was trained on the data."""
    return replace(OWN, trained_on=read_data(OWN, data_dir, holdout=holdout).trained_on)


def texts_of(scored: ScoringRows) -> set[str]:
    return {e.text for part in scored.parts.values() for e in part}


@pytest.mark.parametrize("name", ["reviews.csv", "own/train.csv"])
def test_of_the_trained_file_is_scored_what_training_held_out(tmp_path: Path, name: str) -> None:
    """Wherever the file lies now: dev is what was held out, and train is the rest."""
    file = written(tmp_path / name, range(60))
    data = read_data(OWN, file)
    task = trained(file)
    moved = written(tmp_path / "moved.csv", range(60))
    places = [file, moved] if file.parent == tmp_path else [file, moved, file.parent]

    for place in places:
        told: list[str] = []
        dev = rows_to_score(task, place, "dev", note=told.append)
        train = rows_to_score(task, place, "train", note=told.append)

        assert dev.name == data.dev_name == "dev, a tenth of the file" and train.name == "train"
        assert texts_of(dev) == {e.text for e in data.dev["dev"]}
        assert texts_of(train) == {e.text for e in data.train}
        assert [line for line in told if "these rows were trained on" in line] == told[-1:]


def test_another_file_is_scored_whole_under_its_own_name(tmp_path: Path) -> None:
    """Rows that were not trained on are not divided, and none is said to have been."""
    task = trained(written(tmp_path / "reviews.csv", range(60)))
    other, told = written(tmp_path / "later.csv", range(60, 90)), list[str]()

    scored = rows_to_score(task, other, "dev", note=told.append)

    assert (scored.name, len(texts_of(scored)), told) == ("later.csv", 30, [])


def test_rows_that_were_trained_on_are_said_to_be_that(tmp_path: Path) -> None:
    """In another file, in dev, and where the file had a dev file beside it and is all trained."""
    folder = written(tmp_path / "own" / "train.csv", range(60)).parent
    written(folder / "dev.csv", range(55, 75))
    task, told = trained(folder), list[str]()

    assert rows_to_score(task, folder, "dev", note=told.append).name == "dev"
    assert "5 of 20 rows to measure on are rows that the model was trained on" in told.pop()
    assert rows_to_score(task, folder / "train.csv", "dev", note=told.append).name == "train"
    assert "these rows were trained on" in told.pop()
    mixed = written(tmp_path / "mixed.csv", range(40, 80))
    assert rows_to_score(task, mixed, "dev", note=told.append).name == "mixed.csv"
    assert "20 of 40 rows" in told.pop()


def test_what_is_judged_on_is_named_after_another_file(tmp_path: Path) -> None:
    """A tenth of a file that the model was not trained on is not what was held out of train."""
    task = trained(written(tmp_path / "reviews.csv", range(60)))
    later = written(tmp_path / "later.csv", range(60, 90))

    assert read_data(task, later).dev_name == f"a tenth of {later}"


def test_a_file_alone_has_no_other_splits(tmp_path: Path) -> None:
    """Asked for a split that a file cannot have, or a folder has no file for, it says so."""
    file = written(tmp_path / "own" / "train.csv", range(60))

    with pytest.raises(BadData, match="no such split; got holdout"):
        rows_to_score(trained(file), file, "holdout")
    with pytest.raises(BadData, match=r"has no file for dev; got train\.csv"):
        rows_to_score(OWN, file.parent, "dev")
