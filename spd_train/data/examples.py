"""Rows as labelled texts.

A broken row is named by file and line. It stops the run unless broken rows are skipped. Skipped
rows are counted by what is wrong with them, and the first line of each kind is named.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Columns, Task
from spd_deploy.domain.text import TextEncoder
from spd_train.data.delimited import other_delimiter
from spd_train.data.foreign import tasks_of_label
from spd_train.data.rows import MEND, DataRow, Fault, Name, type_name

Note = Callable[[str], None]
# Opens the tokenizer of the model that reads the rows; called for the first text in doubt alone.
OpenTokenizer = Callable[[], TextEncoder]


_OPTIONS = "check --text-column and --pair-column"


_SEPARATE = "save it with commas as .csv, or with tabs as .tsv"


_MAX_NAMED = 20

NO_TOKENS = Fault(kind="empty text: the tokenizer drops all its characters")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A text or a pair of texts, with its label.

    Attributes:
        text: the text, or the first of a pair.
        pair: the second text; None for a single text.
        label: class index, or the number of a regression; None for an unlabelled row.
        group: value of the column that rows are grouped by; None without such a column.
    """

    text: str
    pair: str | None = None
    label: float | None = None
    group: str | None = None


Splits = dict[str, list[Example]]


def example_of(
    task: Task,
    row: DataRow,
    *,
    labelled: bool,
    name: str = _OPTIONS,
    open_tokenizer: OpenTokenizer | None = None,
    group_column: str | None = None,
) -> Example | Fault:
    """One row as an example, or the fault that prevents it.

    Args:
        task: names the columns and the labels.
        row: the row as read from the file.
        labelled: the row must have a label.
        name: what to do if a column is missing, for the error.
        open_tokenizer: gives the model's tokenizer, for which a text without a token is a fault;
            None lets such texts through.
        group_column: the column that rows are grouped by.

    Raises:
        BadData: the header of the file lacks a needed column, or has it twice.
    """
    if row.fault is not None:
        return row.fault
    columns = task.columns
    needed = columns if labelled else Columns(text=columns.text, pair=columns.pair)
    if fault := columns_fault(row, needed, fix=name):
        return fault
    if group_column is not None and (fault := group_fault(row, group_column)):
        return fault
    text = text_in(row, columns.text)
    pair = None if columns.pair is None else text_in(row, columns.pair)
    if isinstance(text, Fault):
        return text
    if isinstance(pair, Fault):
        return pair
    if fault := token_fault(text, pair, open_tokenizer):
        return fault
    if not labelled or columns.label is None:
        return Example(text=text, pair=pair)
    label = _label(task, row, columns.label)
    if isinstance(label, Fault):
        return label
    group = None if group_column is None else group_in(row, group_column)
    if isinstance(group, Fault):
        return group
    return Example(text=text, pair=pair, label=label, group=group)


def token_fault(text: str, pair: str | None, open_tokenizer: OpenTokenizer | None) -> Fault | None:
    """The fault of texts that the tokenizer drops whole, such as a zero-width space or NUL.

    A text with a letter or a digit always has a token, so the tokenizer sees few texts.
    """
    texts = (text,) if pair is None else (text, pair)
    if open_tokenizer is None or all(any(map(str.isalnum, one)) for one in texts):
        return None
    return NO_TOKENS if open_tokenizer().encode(text, pair).empty else None


def columns_fault(row: DataRow, columns: Columns, *, fix: str) -> Fault | None:
    """The fault of a row that lacks a needed column, or has it twice; None if it has all.

    Raises:
        BadData: the header lacks the column or has it twice, so all rows have the fault.
    """
    needed = [c for c in (columns.text, columns.pair, columns.label) if c is not None]
    for column in needed:
        if column in row.repeated or row.names.count(column) > 1:
            fault = Fault(kind=f"column {column!r} occurs twice", fix="rename one of them")
        elif column not in row.names:
            columns_text = ", ".join(map(repr, row.names[:_MAX_NAMED])) or "none"
            other = None if row.header is None else other_delimiter(row.names, needed)
            fault = Fault(
                kind=f"no column {column!r}",
                got=f"columns {columns_text}",
                fix=fix if other is None else f"the file is separated by {other}: {_SEPARATE}",
            )
        else:
            continue
        if row.header is not None:
            raise BadData(f"{row.file}: {fault.kind}", got=fault.got, fix=fault.fix or MEND)
        return fault
    return None


def group_fault(row: DataRow, column: str) -> Fault | None:
    """The fault of a row without the column that rows are grouped by.

    Raises:
        BadData: the header lacks the column or has it twice, so all rows have the fault.
    """
    return columns_fault(row, Columns(text=column), fix="check --group-by")


def group_in(row: DataRow, column: Name) -> str | Fault:
    """The group of a row as a CSV file would spell it; empty where there is nothing."""
    group = "" if row.fields[column] is None else plain_in(row, column)
    return group if isinstance(group, Fault) else group.strip()


def text_in(row: DataRow, column: Name) -> str | Fault:
    """The text in a column, or the fault that it is empty or no text."""
    text = plain_in(row, column)
    if isinstance(text, str) and not text.strip():
        return Fault(kind="empty text")
    return text


def plain_in(row: DataRow, column: Name) -> str | Fault:
    """The value of a column as a CSV file would spell it, or the fault that it has no such form."""
    value = row.fields[column]
    if value is None:
        return Fault(kind=f"nothing in column {column!r}")
    if isinstance(value, (list, dict, bytes)):
        return Fault(kind=f"column {column!r} holds {type_name(value)}, not a text")
    if not isinstance(value, str):
        return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        return Fault(
            kind=f"half of a surrogate pair in column {column!r}, which is not valid Unicode"
        )
    return value


def label_in(row: DataRow, column: Name) -> str | Fault:
    """The label in a column without surrounding spaces, or the fault that there is none."""
    value = row.fields[column]
    if isinstance(value, list):
        return Fault(
            kind="a list of labels",
            got=json.dumps(value, default=str)[:80],
            fix="give each row one label: several labels a row (multi-label) are not supported",
        )
    label = Fault(kind="no label") if value is None else plain_in(row, column)
    return label if isinstance(label, Fault) else label.strip() or Fault(kind="no label")


def no_usable_rows(file: Path) -> BadData:
    """The error for a file without a usable row."""
    return BadData(f"{file} holds no usable rows", fix="check how the file was written")


def _label(task: Task, row: DataRow, column: Name) -> float | Fault:
    """The class index of a row, or the number of a regression, or a fault."""
    spelled = label_in(row, column)
    if isinstance(spelled, Fault):
        return spelled
    if task.is_regression:
        return _number(spelled)
    name = task.label_values.get(spelled) if task.label_values else spelled
    if name in task.labels:
        return task.labels.index(name)
    known = tuple(task.label_values or task.labels)
    more = f" and {len(known) - _MAX_NAMED} more" if len(known) > _MAX_NAMED else ""
    theirs = tasks_of_label(task, spelled)
    other = f"; that is a label of task {' or '.join(theirs)}" if theirs else ""
    return Fault(
        kind="unknown label",
        got=repr(spelled[:80]),
        fix=f"use one of {', '.join(known[:_MAX_NAMED])}{more}{other}",
    )


def _number(spelled: str) -> float | Fault:
    """The finite number that a text spells, or a fault."""
    try:
        number = float(spelled)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    return Fault(kind="the label is not a number", got=repr(spelled[:80]))
