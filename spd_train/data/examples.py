"""Labelled texts: from GLUE's own layout, the user's files, the hub, or built in.

A row that is broken is named by file and line; it stops the run unless broken rows are to be
skipped, and then they are counted by what is wrong with them, each kind with its first line.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import BUILT_IN, Columns, Task
from spd_train.data.folders import files_of
from spd_train.data.foreign import refuse_foreign_file, tasks_of_label
from spd_train.data.formats import stem_of
from spd_train.data.rows import MEND, DataRow, Fault, Name, other_delimiter, read_rows, type_name

Note = Callable[[str], None]

_OPTIONS = "check --text-column and --pair-column"
_SEPARATE = "save it with commas as .csv, or with tabs as .tsv"
_MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row: a text or a pair, and its label: a class index, or a number for a regression."""

    text: str
    pair: str | None = None
    label: float | None = None


Splits = dict[str, list[Example]]


def read_split(
    task: Task,
    data_dir: Path | None,
    split: str,
    *,
    skip_broken: bool | None = None,
    note: Note = lambda _: None,
) -> Splits:
    """The examples of one split by file name; one file, or two for MNLI's dev and test.

    Args:
        task: says where the columns are and what the labels mean.
        data_dir: a folder, or one file of the user's own; None for the hub or a built-in task.
        split: ``train``, ``dev`` or ``test``; only the last may lack labels.
        skip_broken: leave broken rows out instead of stopping at the first; None where the user
            has no such choice, which is then not advised either.
        note: told how many rows were left out.

    Raises:
        BadData: a file, row, column or label is amiss, named with file and line.
        Unavailable: the hub's copy was asked for and cannot be had.
    """
    if data_dir is None:
        return _without_files(task, split)
    return {
        stem_of(file): _examples(
            task, file, labelled=split != "test", skip_broken=skip_broken, note=note
        )
        for file in files_of(task, data_dir, split)
    }


def example_of(
    task: Task, row: DataRow, *, labelled: bool, name: str = _OPTIONS
) -> Example | Fault:
    """One row as an example, or what is wrong with it.

    Args:
        task: says where the columns are and what the labels mean.
        row: as the file has it.
        labelled: the row must have a label.
        name: what to do about a column that is missing.

    Raises:
        BadData: the whole file lacks a column that is read, or has it twice.
    """
    if row.fault is not None:
        return row.fault
    columns = task.columns
    needed = columns if labelled else Columns(text=columns.text, pair=columns.pair)
    if fault := columns_fault(row, needed, fix=name):
        return fault
    text = text_in(row, columns.text)
    pair = None if columns.pair is None else text_in(row, columns.pair)
    if isinstance(text, Fault):
        return text
    if isinstance(pair, Fault):
        return pair
    if not labelled or columns.label is None:
        return Example(text=text, pair=pair)
    label = _label(task, row, columns.label)
    return label if isinstance(label, Fault) else Example(text=text, pair=pair, label=label)


def columns_fault(row: DataRow, columns: Columns, *, fix: str) -> Fault | None:
    """The fault of a row that lacks a column which is read, or has it twice.

    Raises:
        BadData: all rows of the file do, since its header does.
    """
    wanted = [c for c in (columns.text, columns.pair, columns.label) if c is not None]
    for column in wanted:
        if column in row.repeated or row.names.count(column) > 1:
            fault = Fault(kind=f"column {column!r} stands there twice", fix="rename one of them")
        elif column not in row.names:
            found = ", ".join(map(repr, row.names[:_MOST_NAMED])) or "none"
            other = None if row.header is None else other_delimiter(row.names, wanted)
            fault = Fault(
                kind=f"no column {column!r}",
                got=f"columns {found}",
                fix=fix if other is None else f"the file is separated by {other}: {_SEPARATE}",
            )
        else:
            continue
        if row.header is not None:
            raise BadData(f"{row.file}: {fault.kind}", got=fault.got, fix=fault.fix or MEND)
        return fault
    return None


def text_in(row: DataRow, column: Name) -> str | Fault:
    """The text in a column, which must hold some."""
    text = plain_in(row, column)
    if isinstance(text, str) and not text.strip():
        return Fault(kind="empty text")
    return text


def plain_in(row: DataRow, column: Name) -> str | Fault:
    """What a column holds, as a CSV file would spell it: a text, a number, or true or false."""
    value = row.fields[column]
    if value is None:
        return Fault(kind=f"nothing in column {column!r}")
    if isinstance(value, (list, dict, bytes)):
        return Fault(kind=f"column {column!r} holds {type_name(value)}, not a text")
    if not isinstance(value, str):
        return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        return Fault(kind=f"half of a surrogate pair in column {column!r}, which is no Unicode")
    return value


def label_in(row: DataRow, column: Name) -> str | Fault:
    """The label in a column, without spaces around it."""
    value = row.fields[column]
    if isinstance(value, list):
        return Fault(
            kind="a list of labels",
            got=json.dumps(value, default=str)[:80],
            fix="give each row one label: several labels a row (multi-label) are not supported",
        )
    label = Fault(kind="no label") if value is None else plain_in(row, column)
    return label if isinstance(label, Fault) else label.strip() or Fault(kind="no label")


def _examples(
    task: Task, file: Path, *, labelled: bool, skip_broken: bool | None, note: Note
) -> list[Example]:
    """The examples of one file; broken rows raise, or are skipped and told of."""
    positional = isinstance(task.columns.text, int)
    rows = read_rows(file, header=not positional, quotes=not task.files)
    name = _name_columns(task)

    def made() -> Iterator[tuple[DataRow, Example | Fault]]:
        for i, row in enumerate(rows):
            if i == 0 and task.files:
                refuse_foreign_file(task, row)
            yield row, example_of(task, row, labelled=labelled, name=name)

    found = [one for _, one in sound(made(), skip_broken=skip_broken, note=note)]
    if not found:
        raise no_rows(file)
    return found


def no_rows(file: Path) -> BadData:
    """The error for a file in which no row can be used."""
    return BadData(f"{file} holds no rows that can be used", fix="check how it was written")


def sound(
    made: Iterable[tuple[DataRow, Example | Fault]], *, skip_broken: bool | None, note: Note
) -> list[tuple[DataRow, Example]]:
    """The rows that hold an example, with it; faults are skipped and told of by kind.

    Raises:
        BadData: the first fault, unless broken rows are to be skipped.
    """
    found: list[tuple[DataRow, Example]] = []
    broken: dict[str, list[DataRow]] = {}
    for row, example in made:
        if isinstance(example, Example):
            found.append((row, example))
        elif skip_broken:
            broken.setdefault(example.kind, []).append(row)
        else:
            raise row.error(example, skippable=skip_broken is not None)
    if broken:
        count = sum(map(len, broken.values()))
        kinds = (f"{kind}: {len(rows)}, first {rows[0].place}" for kind, rows in broken.items())
        note(f"skipped {count} broken row{'s' * (count > 1)}: {'; '.join(kinds)}")
    return found


def _name_columns(task: Task) -> str:
    """What to do about a column that is missing where no option names the columns."""
    if task.name == "unknown":
        return "name a --task: the model does not say its own, nor which columns it reads"
    columns = (task.columns.text, task.columns.pair, task.columns.label)
    read = ", ".join(str(column) for column in columns if column is not None)
    return f"name the file's columns as those of task {task.name}: {read}"


def _label(task: Task, row: DataRow, column: Name) -> float | Fault:
    """The class index, or the number of a regression."""
    spelled = label_in(row, column)
    if isinstance(spelled, Fault):
        return spelled
    if task.is_regression:
        return _number(spelled)
    name = task.label_values.get(spelled) if task.label_values else spelled
    if name in task.labels:
        return task.labels.index(name)
    known = tuple(task.label_values or task.labels)
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    theirs = tasks_of_label(task, spelled)
    other = f"; that is a label of task {' or '.join(theirs)}" if theirs else ""
    return Fault(
        kind="unknown label",
        got=repr(spelled[:80]),
        fix=f"use one of {', '.join(known[:_MOST_NAMED])}{more}{other}",
    )


def _number(spelled: str) -> float | Fault:
    """The finite number that a text spells."""
    try:
        number = float(spelled)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    return Fault(kind="the label is no number", got=repr(spelled[:80]))


def _without_files(task: Task, split: str) -> Splits:
    """A built-in task's examples, or the hub's."""
    if task.name in BUILT_IN:
        from spd_train.data.grammar import generate

        return {split: generate(task.name, split)}
    if task.hub is None:
        raise BadData(f"task {task.name!r} has no data of its own", fix="name it with --data")
    from spd_train.data.hub import hub_split

    return hub_split(task, split)
