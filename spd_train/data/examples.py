"""Rows as labelled texts.

A broken row is named by file and line. It stops the run unless broken rows are skipped. Skipped
rows are counted by what is wrong with them, and the first line of each kind is named.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.metrics import Label
from spd_deploy.domain.tasks import Columns, Task
from spd_deploy.domain.text_encoder import TextEncoder
from spd_train.data.delimited import other_delimiter
from spd_train.data.labels import MAX_NAMED, label_of
from spd_train.data.rows import MEND, DataRow, Fault, Name, plain_in

Note = Callable[[str], None]
# Opens the tokenizer of the model that reads the rows; called for the first text in doubt alone.
OpenTokenizer = Callable[[], TextEncoder]


_OPTIONS = "check --text-column and --pair-column"


_SEPARATE = "save it with commas as .csv, or with tabs as .tsv"

NO_TOKENS = Fault(kind="empty text: the tokenizer drops all its characters")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A text or a pair of texts, with its label.

    Attributes:
        text: the text, or the first of a pair.
        pair: the second text; None for a single text.
        label: class index, the number of a regression, or a number for each label
            (:func:`spd_train.data.labels.label_of`); None for an unlabelled row.
        group: value of the column that rows are grouped by; None without such a column.
    """

    text: str
    pair: str | None = None
    label: Label | None = None
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
    label = label_of(task, row, columns.label)
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
            columns_text = ", ".join(map(repr, row.names[:MAX_NAMED])) or "none"
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


def no_usable_rows(file: Path) -> BadData:
    """The error for a file without a usable row."""
    return BadData(f"{file} holds no usable rows", fix="check how the file was written")
