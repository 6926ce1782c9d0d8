"""The task of own data: its name, its labels and their order, and labels that make no task."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_deploy.sessions.checkpoint_tokenizer import opener_of
from spd_train.data.own import own_task_from, sort_key
from spd_train.data.read_split import read_split
from tests.tiny import tiny_model

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
    found = sorted(labels, key=sort_key)

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


def write_shards(folder: Path, split: str, suffix: str, rows: list[tuple[str, str]]) -> None:
    """The rows in two files, named as the Hugging Face hub names shards."""
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        file = folder / f"{split}-{number:05}-of-00002{suffix}"
        named = [{"text": text, "label": label} for text, label in part]
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(named), file)
        else:
            file.write_bytes(gzip.compress("\n".join(map(json.dumps, named)).encode()))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_shards_are_one_split(tmp_path: Path, suffix: str) -> None:
    """Rows come in the shards' order, and a label that only the last shard has is found."""
    rows = [(f"text {i}", "no" if i < 4 else "yes") for i in range(7)]
    write_shards(tmp_path, "train", suffix, rows)
    write_shards(tmp_path, "validation", suffix, rows[:3])

    task = task_of(tmp_path)

    assert task.labels == ("no", "yes")
    for split, expected in (("train", rows), ("dev", rows[:3])):
        ((part, found),) = read_split(task, tmp_path, split).items()
        assert part == ("train" if split == "train" else "validation")
        assert [(e.text, task.labels[int(e.label == 1)]) for e in found] == expected


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """A part of the rows is not taken for all of them."""
    write_shards(tmp_path, "train", ".parquet", [(f"t{i}", str(i % 2)) for i in range(6)])
    (tmp_path / "train-00001-of-00002.parquet").unlink()

    with pytest.raises(BadData, match=r"not whole; got 1 of 2, without number 00001; copy all"):
        task_of(tmp_path)


def test_a_split_in_two_forms_is_refused(tmp_path: Path) -> None:
    """Shards beside a whole file are two answers to one question."""
    write_shards(tmp_path, "train", ".parquet", [(f"t{i}", str(i % 2)) for i in range(6)])
    labelled(tmp_path, "a", "b", name="train.csv")

    with pytest.raises(BadData, match=r"has 3 files for train"):
        task_of(tmp_path)


def test_the_folder_below_is_named(tmp_path: Path) -> None:
    """A snapshot of the hub keeps its files in data/."""
    (tmp_path / "data").mkdir()
    write_shards(tmp_path / "data", "train", ".parquet", [("a", "0"), ("b", "1")])

    with pytest.raises(BadData, match=rf"did you mean {tmp_path / 'data'}\?"):
        task_of(tmp_path)


def test_labels_of_texts_without_tokens_are_no_labels(tmp_path: Path) -> None:
    """A row that training skips makes no class, and stops the run where it is not skipped."""
    file = labelled(tmp_path, "no", "yes", "no", "yes")
    file.write_text(file.read_text() + "\u00ad,maybe\n")
    open_tokenizer = opener_of(tiny_model(tmp_path / "m"), max_tokens=8)

    def task(*, skip: bool) -> Task:
        return own_task_from(
            file, text_column="text", pair_column=None, label_column="label", regression=False,
            skip_broken=skip, open_tokenizer=open_tokenizer,
        )  # fmt: skip

    assert task(skip=True).labels == ("no", "yes")
    with pytest.raises(BadData, match="line 6: empty text: the tokenizer drops"):
        task(skip=False)


def ordered(file: Path, *order: str) -> Task:
    return own_task_from(
        file,
        text_column="text",
        pair_column=None,
        label_column="label",
        regression=False,
        ordinal=True,
        label_order=order,
    )


def read_labels(task: Task, file: Path) -> list[object]:
    (rows,) = read_split(task, file, "train").values()
    return [row.label for row in rows]


def test_labels_with_an_order_are_numbers_to_predict(tmp_path: Path) -> None:
    """Numbers stand at their value; words have the order that is named, also one without a row."""
    stars = labelled(tmp_path, "5", "1", "3")
    words = labelled(tmp_path, "high", "low", name="words.csv")

    by_value, by_name = ordered(stars), ordered(words, "low", "medium", "high")

    assert by_value.ordinal == ("1", "3", "5") and by_value.is_regression
    assert read_labels(by_value, stars) == [5, 1, 3]
    assert by_name.ordinal == ("low", "medium", "high")
    assert read_labels(by_name, words) == [2, 0]


@pytest.mark.parametrize(
    ("labels", "order", "said"),
    [
        (("low", "high"), (), "nothing tells their order; got high, low; .*--label-order"),
        (("1", "x"), (), "labels that are no numbers"),
        (("low", "high"), ("low", "medium"), "--label-order does not name; got 'high'"),
        (("1", "1.0"), (), "one label in two ways"),
    ],
    ids=["words", "mixed", "not named", "alike"],
)
def test_labels_without_an_order_are_refused(
    tmp_path: Path, labels: tuple[str, ...], order: tuple[str, ...], said: str
) -> None:
    """Words need one that is named, and whole."""
    with pytest.raises(BadData, match=said):
        ordered(labelled(tmp_path, *labels, labels[0]), *order)
