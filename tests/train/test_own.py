"""The task of own data: its name, its labels and their order, and labels that make no task."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_train.data.own import label_order, own_task_from
from spd_train.data.read_split import read_split

NANS = ("nan", "NaN", "NA", "null", "inf", "-Infinity", "1_0", "\u0661")


def task_of(
    file: Path, *, text: str = "text", label: str = "label", skip: bool = False, score: bool = False
) -> Task:
    return own_task_from(
        file,
        text_column=text,
        pair_column=None,
        label_column=label,
        regression=score,
        skip_broken=skip,
    )


def labelled(folder: Path, *labels: str, name: str = "reviews.csv") -> Path:
    """A file with a text for each label."""
    file = folder / name
    file.write_text("text,label\n" + "".join(f"t{i},{x}\n" for i, x in enumerate(labels)))
    return file


@given(labels=st.permutations([*NANS, "0", "1", "10", "9", "-2.5", "a", "B"]))
def test_labels_have_one_order(labels: list[str]) -> None:
    """Whatever order they are found in: numbers by value, then words, and NaN is a word."""
    found = sorted(labels, key=label_order)

    assert found[:5] == ["-2.5", "0", "1", "9", "10"]
    assert found[5:] == sorted([*NANS, "a", "B"])


def test_labels_of_own_data_are_found_in_order(tmp_path: Path) -> None:
    """Numbers count by value, so class 10 comes after class 9; spaces are no part of a label."""
    assert task_of(labelled(tmp_path, "10", " 9", "1 ", "9")).labels == ("1", "9", "10")


def test_broken_rows_make_no_labels_of_own_data(tmp_path: Path) -> None:
    """Rows that are skipped do not stop the search, and their labels are none."""
    file = tmp_path / "train.csv"
    file.write_text("text,y\na,good\nbroken\nb,bad\nc,\n ,ugly\nd,good\n")

    task = task_of(file, label="y", skip=True)
    rows = read_split(task, file, "train", skip_broken=True)["train"]

    assert task.labels == ("bad", "good")
    assert [row.text for row in rows] == ["a", "b", "d"]
    with pytest.raises(BadData, match="line 3: another number of fields"):
        task_of(file, label="y")


@pytest.mark.parametrize(
    "labels",
    [
        ("1", "1.0"),
        ("01", "1"),
        ("1", "1e0"),
        ("pos", "pos\u200b"),
        ("a  b", "a b"),
        ("\uff41", "a"),
    ],
    ids=ascii,
)
def test_labels_that_read_alike_are_refused(tmp_path: Path, labels: tuple[str, str]) -> None:
    """One number spelled in two ways, or one word but for what cannot be seen; both are named."""
    with pytest.raises(BadData, match="one label in two ways") as caught:
        task_of(labelled(tmp_path, *labels, "other", labels[0]))

    assert caught.value.got == f"{labels[0]!r} in 2 rows and {labels[1]!r} in 1"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("x", "x"), "at least two different labels; got x"),
        (tuple(f"T-{i}" for i in range(30)), "too many different labels.*30 of them in 30 rows"),
        (tuple(str(i % 1200) for i in range(5000)), "too many different labels"),
    ],
    ids=["one", "one a row", "more than 1000"],
)
def test_absurd_labels_are_refused(tmp_path: Path, labels: tuple[str, ...], said: str) -> None:
    """A single class, nearly one a row, and thousands teach nothing; as numbers they may."""
    with pytest.raises(BadData, match=said):
        task_of(labelled(tmp_path, *labels))


def test_numbers_to_predict_may_all_differ(tmp_path: Path) -> None:
    """A regression has no labels to count."""
    assert task_of(labelled(tmp_path, *(f"{i / 7}" for i in range(40))), score=True).labels == ()


def test_a_text_is_not_its_own_label(tmp_path: Path) -> None:
    """One column for both is refused."""
    with pytest.raises(BadData, match="must differ; got 'text' for two"):
        task_of(labelled(tmp_path, "a", "b"), label="text")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("reviews.csv", "reviews"),
        ("tickets/train.csv", "tickets"),
        ("tickets/dev.csv.gz", "tickets"),
        ("my reviews.v2.csv.gz", "my reviews.v2"),
        ("sst2.csv", "own-sst2"),
        ("unknown.csv", "own-unknown"),
    ],
)
def test_the_task_is_called_after_its_file(tmp_path: Path, path: str, name: str) -> None:
    """The file's name, its folder's where the file's is a split's, and never another task's."""
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    content = b"text,label\na,x\nb,y\n"
    file.write_bytes(gzip.compress(content) if path.endswith(".gz") else content)

    assert task_of(file).name == name
    if file.parent != tmp_path and file.name.startswith("train"):
        assert task_of(file.parent).name == name
