"""What is said of data before it is trained on, and what of it is suspicious."""

from dataclasses import replace

import pytest

from spd_deploy.domain.tasks import TASKS, Task, own_task
from spd_train.data.examples import Example
from spd_train.data.splits import Data
from spd_train.data.summary import data_warnings, label_counts, report_data, row_counts


def task_of(*labels: str) -> Task:
    return own_task(text_column="t", pair_column=None, label_column="y", labels=labels)


def rows(count: int, *, labels: int = 2, start: int = 0) -> list[Example]:
    return [Example(text=f"text {i}", label=i % labels) for i in range(start, start + count)]


def data_of(train: list[Example], dev: list[Example], holdout: list[Example] = []) -> Data:  # noqa: B006
    return Data.of(train, {"dev": dev}, dev_name="dev", holdout=holdout)


def test_sound_data_is_told_of_and_not_doubted() -> None:
    """Rows by what they are for, each label with its count, and not a word more."""
    data = data_of(rows(200), rows(20, start=300), rows(30, start=400))
    told: list[str] = []

    report_data(task_of("bad", "very good"), data, told.append)

    assert told == [
        "data: 200 rows to train on, 30 validation rows to choose the best checkpoint on, "
        "20 to measure on (dev)",
        "labels: bad (125 rows), 'very good' (125 rows)",
    ]


def test_a_regression_tells_its_numbers() -> None:
    """The range and the mean stand in place of labels."""
    train = [Example(text=str(i), label=i) for i in range(5)]

    assert label_counts(TASKS["stsb"], data_of(train, train)) == (
        "labels: numbers from 0 to 4, mean 2"
    )


TWO = task_of("a", "b")
FEW, DEV = rows(200), rows(20, start=300)
MANY = tuple(f"l{i}" for i in range(120))


@pytest.mark.parametrize(
    ("task", "data", "said"),
    [
        (TWO, data_of(rows(6), rows(2, start=8)), "6 rows to train on are few"),
        (task_of(*MANY), data_of(rows(240, labels=120), DEV), "120 labels are many"),
        (task_of("a", "b", "c"), data_of([*FEW, Example(text="x", label=2)], DEV), "one row"),
        (task_of("a", "b", "c"), data_of(FEW, [replace(e, label=2) for e in DEV]), "no row to"),
        (task_of("nan", "b"), data_of(FEW, DEV), "'nan' may stand for a missing label"),
        (task_of("pos", "Pos"), data_of(FEW, DEV), "'pos', 'Pos' differ in case alone"),
        (TWO, data_of(FEW, rows(20, start=190)), "10 of 20 rows to measure on stand in train too"),
        (TWO, data_of(FEW, DEV, DEV[:3]), "3 of 20 rows to measure on stand in train too"),
        (TWO, data_of([*FEW, replace(FEW[0], label=1)], DEV), "texts that have several labels: 1"),
    ],
    ids=["few", "many", "single", "absent", "nan", "case", "twice", "twice held", "unlike"],
)
def test_each_doubt_is_said_alone(task: Task, data: Data, said: str) -> None:
    """What is suspicious is said, and nothing else is."""
    (doubt,) = data_warnings(task, data)

    assert said in doubt


def test_rows_are_counted_over_all_dev_files() -> None:
    """MNLI has two."""
    data = Data.of(rows(9), {"a": rows(2), "b": rows(3)}, dev_name="dev")

    assert row_counts(data) == "data: 9 rows to train on, 5 to measure on (dev)"
