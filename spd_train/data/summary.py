"""A report on the data of a run before training: counts, and warnings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from spd_deploy.domain.metrics import Label
from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.data.examples import Example, Note
from spd_train.data.found_labels import parted_labels
from spd_train.data.labels import hard_labels
from spd_train.data.splits import Data

_MAX_SHOWN = 20
_MANY_LABELS = 100
_FEW_ROWS = 100
# Spellings of a missing value in pandas, R and JSON.
_MISSING = ("nan", "na", "n/a", "<na>", "null", "none")


def report_data(task: Task, data: Data, note: Note) -> None:
    """Report the number of rows and labels, then a line for each warning."""
    note(row_counts(data))
    note(label_counts(task, data))
    for warning in data_warnings(task, data):
        note(f"warning: {warning}")


def row_counts(data: Data) -> str:
    """The number of rows to train on, to choose on and to score on, as a line."""
    validation = f"{len(data.holdout)} validation rows to choose the best checkpoint on, "
    dev = sum(map(len, data.dev.values()))
    return (
        f"data: {len(data.train)} rows to train on, {validation if data.holdout else ''}"
        f"{dev} to measure on ({data.dev_name})"
    )


def label_counts(task: Task, data: Data) -> str:
    """Each label with its count over all rows, or the range of a regression, as a line."""
    rows = list(_all_rows(data))
    if not task.names:
        numbers = np.array([row.label for row in rows if isinstance(row.label, int | float)])
        ends = f"from {numbers.min():g} to {numbers.max():g}"
        return f"labels: numbers {ends}, mean {numbers.mean():.3g}"
    counts = _counts(task, rows)
    shown = [f"{_quoted(label)} ({n} rows)" for label, n in list(counts.items())[:_MAX_SHOWN]]
    more = f", and {len(counts) - _MAX_SHOWN} more labels" if len(counts) > _MAX_SHOWN else ""
    return f"labels: {', '.join(shown)}{more}{_several(task, rows)}"


def _several(task: Task, rows: Sequence[Example]) -> str:
    """Of a multi-label task how many labels a row has, and how many rows have none."""
    if not task.is_multi_label:
        return ""
    sizes = [len(hard_labels(task, row.label)) for row in rows if row.label is not None]
    none = f", {sizes.count(0)} rows have none" if 0 in sizes else ""
    return f"; a row has {np.mean(sizes):.2f} labels on average{none}"


def data_warnings(task: Task, data: Data) -> Iterator[str]:
    """Warnings about the number of rows, the labels and the texts."""
    if len(data.train) < _FEW_ROWS:
        yield f"{len(data.train)} rows to train on are few: a useful classifier needs hundreds"
    if task.names:
        yield from _label_warnings(task, data)
    yield from _text_warnings(task, data)


def _label_warnings(task: Task, data: Data) -> Iterator[str]:
    """Warnings about many labels, rare labels, and labels that differ in case alone."""
    counts = _counts(task, list(_all_rows(data)))
    if len(counts) > _MANY_LABELS:
        yield f"{len(counts)} labels are many: is the label column the right one?"
    if single := [label for label, count in counts.items() if count == 1]:
        yield f"one row is too few to learn a label from and to measure it on: {_listed(single)}"
    trained = _counts(task, data.train)
    if task.problem_type is ProblemType.SINGLE_LABEL and (label := parted_labels(counts)):
        yield f"labels such as {label!r} look like several labels: --multi-label reads them so"
    if absent := [label for label, n in trained.items() if n == 0 and counts[label] != 1]:
        yield f"no row to train on has the label {_listed(absent)}"
    if missing := [label for label in counts if label.casefold() in _MISSING]:
        yield f"{_listed(missing)} may stand for a missing label, and is learned as a label"
    by_case: dict[str, list[str]] = {}
    for label in task.names:
        by_case.setdefault(label.casefold(), []).append(label)
    for alike in (labels for labels in by_case.values() if len(labels) > 1):
        yield f"{_listed(alike)} differ in case alone, and are learned as different labels"


def _text_warnings(task: Task, data: Data) -> Iterator[str]:
    """Warnings about dev rows that are trained on too, and equal texts with several labels."""
    trained = {(e.text, e.pair) for e in chain(data.train, data.holdout)}
    dev = [e for part in data.dev.values() for e in part]
    twice = [e for e in dev if (e.text, e.pair) in trained]
    if twice:
        yield (
            f"{len(twice)} of {len(dev)} rows to measure on stand in train too, "
            f"such as {twice[0].text[:40]!r}"
        )
    if not task.names:
        return
    labels: dict[tuple[str, str | None], set[Label | None]] = {}
    for e in _all_rows(data):
        labels.setdefault((e.text, e.pair), set()).add(e.label)
    if unlike := [texts for texts, seen in labels.items() if len(seen) > 1]:
        yield f"texts that have several labels: {len(unlike)}, such as {unlike[0][0][:40]!r}"


def _all_rows(data: Data) -> Iterator[Example]:
    """All labelled rows of train, holdout and dev."""
    return chain(data.train, data.holdout, *data.dev.values())


def _counts(task: Task, rows: Sequence[Example]) -> dict[str, int]:
    """The number of rows of each label, in the order of the task's labels."""
    labels = (row.label for row in rows if row.label is not None)
    counts = Counter(chain.from_iterable(hard_labels(task, label) for label in labels))
    return {label: counts[i] for i, label in enumerate(task.names)}


def _listed(labels: Sequence[str]) -> str:
    """The first labels, and how many more there are."""
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(map(repr, labels[:5])) + more


def _quoted(label: str) -> str:
    """A label, in quotes if it would not be read as one word."""
    return label if label.isidentifier() else repr(label)
