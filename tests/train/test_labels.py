"""What label cells mean: one label, several, or probabilities; and which cells are refused."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.metrics import Label
from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.data.batching import labels_tensor
from spd_train.data.own import own_task_from
from spd_train.data.read_split import read_split


def task_of(
    file: Path, *, several: bool = False, separator: str | None = None, notes: list[str]
) -> Task:
    return own_task_from(
        file,
        text_column="text",
        pair_column=None,
        label_column="y",
        regression=False,
        multi_label=several,
        separator=separator,
        note=notes.append,
    )


def jsonl(folder: Path, *cells: object) -> Path:
    """A file with a text for each label cell."""
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"t{i}", "y": cell}) + "\n" for i, cell in enumerate(cells))
    )
    return file


def csv(folder: Path, *cells: str) -> Path:
    """A CSV file with a text for each label cell."""
    file = folder / "rows.csv"
    file.write_text("text,y\n" + "".join(f't{i},"{cell}"\n' for i, cell in enumerate(cells)))
    return file


def labels_in(task: Task, file: Path) -> list[Label | None]:
    (rows,) = read_split(task, file, "train").values()
    return [row.label for row in rows]


def test_lists_are_several_labels(tmp_path: Path) -> None:
    """Lists in JSON Lines, in Parquet and as pandas writes them to CSV are told, and are one."""
    cells = [["b", "a"], [], ["c", "c"]]
    parquet = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y", "z"], "y": cells}), parquet)
    python = csv(tmp_path, *map(str, cells))

    for file in (jsonl(tmp_path, *cells), parquet, python):
        notes: list[str] = []
        task = task_of(file, notes=notes)

        assert task.problem_type is ProblemType.MULTI_LABEL and task.labels == ("a", "b", "c")
        assert labels_in(task, file) == [(1, 1, 0), (0, 0, 0), (0, 0, 1)]
        assert notes == ["column 'y' holds lists: a row may have several labels (multi-label)"]


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_the_separator_of_texts_is_found(tmp_path: Path, separator: str) -> None:
    """The only one of the usual separators that occurs parts the labels, and is told."""
    file = csv(tmp_path, f"b {separator} a", "", "a", f"{separator}b{separator}")
    notes: list[str] = []

    task = task_of(file, several=True, notes=notes)

    assert task.separator == separator and separator in notes[0]
    assert labels_in(task, file) == [(1, 1), (0, 0), (1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("cells", "separator", "said"),
    [
        (("a|b", "a;b"), None, r"separated by '\|' or ';'; got 'a\|b'.*--label-separator"),
        (("1", "2", "3"), None, "no row has several labels in column 'y'; got one in each"),
        (("0.5", "2"), None, "leave --multi-label out"),
        (("a", "a"), "/", "at least two different labels"),
    ],
    ids=["two separators", "numbers alone", "decimals", "one label"],
)
def test_texts_that_do_not_part_are_refused(
    tmp_path: Path, cells: tuple[str, ...], separator: str | None, said: str
) -> None:
    """What parts the labels must be beyond doubt, or be named."""
    with pytest.raises(BadData, match=said):
        task_of(csv(tmp_path, *cells), several=True, separator=separator, notes=[])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ((["a"], "b"), "line 2: column 'y' holds lists .* texts in others; got 'b'"),
        (("b", ["a"]), "line 2: column 'y' holds lists"),
        ((["a"], [["b"]]), "line 2: a list of labels with something else than a label in it"),
        ((["a"], ["b", None]), "line 2: a list of labels with something else"),
        ((["a", "b"], None), "line 2: no label"),
        (
            ([1, 0, 0], ["a"]),
            "line 1: ones and zeros in the place of labels; got .* the names",
        ),
        (([True, False], ["a"]), "line 1: ones and zeros in the place of labels"),
        (([0.9, 0.1], ["a"]), "line 1: a list of scores in the place of labels"),
        (([{"label": "a", "score": 0.9}], ["a"]), "line 1: a list of scores .* an object such as"),
        (({"a": 0.5, "b": 1.5}, "a"), "line 1: a probability of a label outside of 0 to 1"),
        (({"a": 0.5, "b": "x"}, "a"), "line 1: a probability"),
        (({}, "a"), "line 1: no label"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_cells_that_make_no_labels_are_refused(
    tmp_path: Path, cells: tuple[object, ...], said: str
) -> None:
    """Mixed kinds of cells and broken ones are named with their line."""
    with pytest.raises(BadData, match=said):
        task_of(jsonl(tmp_path, *cells), notes=[])


def test_a_label_unknown_to_train_is_refused(tmp_path: Path) -> None:
    """In a list, and in a text, for which the separator is told."""
    notes: list[str] = []
    task = task_of(jsonl(tmp_path, ["a"], ["b"]), notes=notes)

    with pytest.raises(BadData, match="line 1: unknown label; got 'c'; use one of a, b, or"):
        read_split(task, jsonl(tmp_path, ["c"]), "train", skip_broken=False)
    with pytest.raises(BadData, match=r"got 'c'; use one of a, b, with '\|' between two"):
        read_split(task, csv(tmp_path, "a|c"), "train")


def test_probabilities_are_soft_labels(tmp_path: Path) -> None:
    """They may stand beside plain labels; one that is not named has none; a class is one-hot."""
    cells = ({"good": 0.75, "bad": 0.25}, "bad", {"bad": 1.0}, "{'good': 0.5, 'bad': 0.495}")
    file = jsonl(tmp_path, *cells)
    notes: list[str] = []

    task = task_of(file, notes=notes)
    labels = labels_in(task, file)

    assert task.problem_type is ProblemType.SINGLE_LABEL and task.labels == ("bad", "good")
    assert labels[:3] == [(0.25, 0.75), 0, (1.0, 0.0)]
    assert sum(labels[3] if isinstance(labels[3], tuple) else ()) == pytest.approx(1)
    assert "3 of 4 rows have probabilities" in notes[0]
    tensor = labels_tensor([label for label in labels if label is not None])
    assert tensor.tolist()[:3] == [[0.25, 0.75], [1.0, 0.0], [1.0, 0.0]]


def test_probabilities_of_one_label_sum_to_1(tmp_path: Path) -> None:
    """Of several labels they need not."""
    file = jsonl(tmp_path, {"a": 0.9, "b": 0.9}, {"a": 0.1, "b": 0.0})

    with pytest.raises(BadData, match=r"line 1: the probabilities .* not sum to 1; got a sum of 1"):
        labels_in(task_of(file, notes=[]), file)

    assert labels_in(task_of(file, several=True, notes=[]), file) == [(0.9, 0.9), (0.1, 0.0)]


def test_a_list_is_no_answer_of_one_label(tmp_path: Path) -> None:
    """A model of one label a row, and a regression, are not measured on lists."""
    one = task_of(csv(tmp_path, "a", "b"), notes=[])

    with pytest.raises(BadData, match=r'a list of labels; got \["a", "b"\].*--multi-label'):
        labels_in(one, jsonl(tmp_path, ["a", "b"]))
