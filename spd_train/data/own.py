"""The task of the user's own data: its name, and the labels found in its file."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.ordinal import are_numbers
from spd_deploy.domain.tasks import Columns, ProblemType, Task, own_task
from spd_train.data.examples import (
    Note,
    OpenTokenizer,
    columns_fault,
    no_usable_rows,
    text_in,
    token_fault,
)
from spd_train.data.folders import own_files, own_name
from spd_train.data.found_labels import FoundLabels
from spd_train.data.labels import Cell, label_cell, no_single_label
from spd_train.data.read_rows import read_rows
from spd_train.data.rows import DataRow, Fault

_COLUMNS = "check --text-column, --pair-column and --label-column"
_MAX_LABELS = 1000
# With fewer labels than this, a label for each row is a small example and not a mistake.
_FEW_LABELS = 20
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def own_task_from(
    data_dir: Path,
    *,
    text_column: str,
    pair_column: str | None,
    label_column: str,
    regression: bool,
    multi_label: bool = False,
    separator: str | None = None,
    ordinal: bool = False,
    label_order: Sequence[str] = (),
    skip_broken: bool = False,
    name: str | None = None,
    open_tokenizer: OpenTokenizer | None = None,
    note: Note = lambda _: None,
) -> Task:
    """The task of the user's training file, with the labels found in the label column.

    Args:
        data_dir: the file, or a folder with a file for train.
        text_column: column with the text.
        pair_column: column with the second text, if any.
        label_column: column with the label.
        regression: the label is a number to predict.
        multi_label: a row may have several labels. It also may where the file holds lists of them.
        separator: what stands between the labels of a text; None finds it.
        ordinal: the labels have an order, and the model answers a number.
        label_order: the labels from the lowest to the highest; empty for numbers.
        skip_broken: broken rows are skipped later, so they are no error here.
        name: name of the task; by default that of its file.
        open_tokenizer: gives the model's tokenizer; a text without a token for it is a broken row.
        note: is told what was found that the options do not say.

    Raises:
        BadData: there is no training file or no such column, or the labels make no classification.
    """
    columns = Columns(text=text_column, pair=pair_column, label=label_column)
    _refuse_shared(columns)
    number = regression or ordinal
    kind = ProblemType.REGRESSION if number else ProblemType.SINGLE_LABEL
    if multi_label:
        kind = ProblemType.MULTI_LABEL
    files = own_files(data_dir, "train")
    found = _found(files, columns, kind, skip_broken, open_tokenizer)
    if found.lists and kind is not ProblemType.MULTI_LABEL:
        note(f"column {label_column!r} holds lists: a row may have several labels (multi-label)")
        kind = ProblemType.MULTI_LABEL
    if found.soft:
        note(
            f"{found.soft} of {found.rows} rows have probabilities in the place of labels: they "
            "are trained on as they are, and scored by the most probable label"
        )
    parted = found.separator(separator, note) if kind is ProblemType.MULTI_LABEL else None
    counts = found.counts(parted)
    if len(counts) < 2:
        raise BadData(
            f"column {label_column!r} must hold at least two different labels",
            got=", ".join(counts) or "none",
            fix="name another --label-column",
        )
    if not regression:
        _refuse_alike(counts, label_column)
        _refuse_absurd(counts, found.rows, label_column)
    return own_task(
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        labels=() if number else tuple(sorted(counts, key=sort_key)),
        name=name or own_name(data_dir),
        separator=parted,
        ordinal=_ordered(counts, label_order, label_column) if ordinal else (),
    )


def _ordered(counts: Mapping[str, int], order: Sequence[str], column: str) -> tuple[str, ...]:
    """The labels from the lowest to the highest.

    Raises:
        BadData: nothing tells the order of a label.
    """
    if order:
        if missing := [label for label in counts if label not in order]:
            raise BadData(
                f"column {column!r} has a label that --label-order does not name",
                got=repr(missing[0][:80]),
                fix="name every label, from the lowest to the highest",
            )
        return tuple(order)
    if not are_numbers(tuple(counts)):
        raise BadData(
            f"column {column!r} has labels that are no numbers, so nothing tells their order",
            got=", ".join(sorted(counts)[:5]),
            fix="name them from the lowest to the highest, as --label-order low,medium,high",
        )
    return tuple(sorted(counts, key=sort_key))


def sort_key(label: str) -> tuple[int, float, str]:
    """Sort key of labels: numbers by value first, then words by letter, so 10 comes after 9.

    A word that Python reads as a number, such as ``nan`` or ``infinity``, is a word.
    """
    number = float(label) if _NUMBER.fullmatch(label) else math.inf
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)


def _found(
    files: Sequence[Path],
    columns: Columns,
    kind: ProblemType,
    skip_broken: bool,
    open_tokenizer: OpenTokenizer | None,
) -> FoundLabels:
    """The label cells of the rows that have texts.

    Broken rows that are to be skipped are ignored; they are reported when the examples are made.
    """
    found = FoundLabels(column=str(columns.label))
    for row in chain.from_iterable(map(read_rows, files)):
        cell = row.fault or _cell_of(row, columns, kind, open_tokenizer)
        if not isinstance(cell, Fault):
            found.add(row, cell)
        elif not skip_broken:
            raise row.error(cell, skippable=True)
    if not found.rows:
        raise no_usable_rows(files[0])
    return found


def _cell_of(
    row: DataRow, columns: Columns, kind: ProblemType, open_tokenizer: OpenTokenizer | None
) -> Cell | Fault:
    """The label cell of a row that has its texts, or the row's fault."""
    assert columns.label is not None  # noqa: S101 - own data is labelled
    if fault := columns_fault(row, columns, fix=_COLUMNS):
        return fault
    text = text_in(row, columns.text)
    pair = None if columns.pair is None else text_in(row, columns.pair)
    if isinstance(text, Fault):
        return text
    if isinstance(pair, Fault):
        return pair
    if fault := token_fault(text, pair, open_tokenizer):
        return fault
    cell = label_cell(row, columns.label)
    if cell == "" and kind is not ProblemType.MULTI_LABEL:
        return Fault(kind="no label")
    if kind is ProblemType.REGRESSION and not isinstance(cell, str | Fault):
        return no_single_label(cell)
    return cell


def _refuse_shared(columns: Columns) -> None:
    """Refuse the same column for two roles, such as text and label.

    Raises:
        BadData: two of the columns are the same.
    """
    named = [c for c in (columns.text, columns.pair, columns.label) if c is not None]
    twice = [column for column in named if named.count(column) > 1]
    if twice:
        raise BadData(
            "--text-column, --pair-column and --label-column must differ",
            got=f"{twice[0]!r} for two of them",
            fix="name another column",
        )


def _refuse_alike(counts: Mapping[str, int], column: str) -> None:
    """Refuse labels that a reader takes for the same one, since they would be two classes.

    Raises:
        BadData: two labels are the same number, or differ only in spaces or invisible characters.
    """
    seen: dict[object, str] = {}
    for label in counts:
        other = seen.setdefault(_alike(label), label)
        if other != label:
            raise BadData(
                f"column {column!r} spells one label in two ways",
                got=f"{other!r} in {counts[other]} rows and {label!r} in {counts[label]}",
                fix="spell it in one way",
            )


def _alike(label: str) -> object:
    """A key that is equal for labels that a reader takes for the same."""
    if _NUMBER.fullmatch(label) and math.isfinite(number := float(label)):
        return number
    plain = unicodedata.normalize("NFKC", label)
    visible = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    return " ".join(visible.split())


def _refuse_absurd(counts: Mapping[str, int], rows: int, column: str) -> None:
    """Refuse labels that no classifier can learn.

    Raises:
        BadData: nearly every row has a label of its own, or there are too many labels.
    """
    nearly_one_a_row = len(counts) > _FEW_LABELS and 2 * len(counts) > rows
    if nearly_one_a_row or len(counts) > _MAX_LABELS:
        examples = ", ".join(repr(label[:40]) for label in list(counts)[:3])
        raise BadData(
            f"column {column!r} holds too many different labels for a classification",
            got=f"{len(counts)} of them in {rows} rows, such as {examples}",
            fix="name another --label-column, or say --regression if the label is a number",
        )
