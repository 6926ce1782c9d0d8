"""The label of a row: the cell of its label column, and what a task makes of it.

A cell holds one name, a list of names (several labels, or none), or an object with a probability
for each label (soft labels). In CSV a cell that begins with ``[`` or ``{`` may hold a list or an
object as JSON, or as Python writes it, which is how pandas saves them.
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spd_deploy.domain.metrics import TRUE, Label
from spd_deploy.domain.ordinal import nearest, places_of
from spd_deploy.domain.tasks import ProblemType, Task
from spd_train.data.foreign import tasks_of_label
from spd_train.data.rows import DataRow, Fault, Name, plain_in, plain_text

# A name, names in a list, or a probability for each name.
Cell = str | tuple[str, ...] | Mapping[str, float]

MAX_NAMED = 20
# Probabilities that were rounded when they were written do not sum to exactly 1.
_SUM_TOLERANCE = 0.0101
_SOFT = 'write an object such as {"good": 0.9, "bad": 0.1}'
_SEVERAL = "give each row one label, or train with --multi-label for several labels a row"


def label_cell(row: DataRow, column: Name) -> Cell | Fault:
    """The cell of a row, without surrounding spaces; an empty text if there is nothing in it."""
    value = row.fields[column]
    if isinstance(value, str):
        value = _literal(value)
    if value is None:
        return Fault(kind="no label")
    if isinstance(value, dict):
        return _probabilities(value)
    if isinstance(value, list):
        pairs = value and all(isinstance(one, tuple) and len(one) == 2 for one in value)
        return _probabilities(dict(value)) if pairs else _names(value)  # Parquet's maps are pairs
    text = plain_in(row, column)
    return text if isinstance(text, Fault) else text.strip()


def label_of(task: Task, row: DataRow, column: Name) -> Label | Fault:
    """The label of a row as training and scoring count it, or a fault.

    It is a class index, the number of a regression, or for each label of the task a probability: 0
    or 1 of a multi-label task, and any other where the row has soft labels.
    """
    cell = label_cell(row, column)
    if isinstance(cell, Fault):
        return cell
    match task.problem_type:
        case ProblemType.MULTI_LABEL:
            return _several(task, cell)
        case ProblemType.SINGLE_LABEL:
            return _single(task, cell)
        case ProblemType.REGRESSION if not isinstance(cell, str):
            return no_single_label(cell)
        case ProblemType.REGRESSION:
            return _place(task, cell) if task.ordinal else _number(cell)


def no_single_label(cell: Cell) -> Fault:
    """The fault of a row with several labels, or with probabilities, where it should have one."""
    if isinstance(cell, Mapping):
        return Fault(
            kind="probabilities in the place of the label",
            got=str(dict(cell))[:80],
            fix="give each row its label",
        )
    return Fault(kind="a list of labels", got=json.dumps(cell)[:80], fix=_SEVERAL)


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """The labels of a text such as ``a|b``; none of an empty one."""
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def hard_labels(task: Task, label: Label) -> tuple[int, ...]:
    """The numbers of the labels that a row counts as having.

    Of soft labels of a task of one label it is the most probable one.
    """
    if not isinstance(label, tuple):
        return (int(nearest(task.ordinal, label)) if task.ordinal else int(label),)
    if task.is_multi_label:
        return tuple(i for i, share in enumerate(label) if share >= TRUE)
    return (max(range(len(label)), key=lambda i: (label[i], -i)),)


def _single(task: Task, cell: Cell) -> Label | Fault:
    """The class index, or the probability of each class."""
    if isinstance(cell, tuple):
        return no_single_label(cell)
    if isinstance(cell, str):
        name = task.label_values.get(cell) if task.label_values else cell
        if not cell:
            return Fault(kind="no label")
        return task.labels.index(name) if name in task.labels else _unknown(task, cell)
    shares = _by_label(task, cell)
    if isinstance(shares, Fault):
        return shares
    total = math.fsum(shares)
    if abs(total - 1) > _SUM_TOLERANCE:
        return Fault(
            kind="the probabilities of the labels do not sum to 1",
            got=f"a sum of {total:.4g}",
            fix="name every label that is possible, or say --multi-label if several can be true",
        )
    return tuple(share / total for share in shares)


def _several(task: Task, cell: Cell) -> Label | Fault:
    """For each label whether the row has it: 1 or 0, or a probability."""
    if isinstance(cell, Mapping):
        return _by_label(task, cell)
    names = split_labels(cell, task.separator) if isinstance(cell, str) else cell
    if unknown := [name for name in names if name not in task.labels]:
        fault = _unknown(task, unknown[0])
        between = f", with {task.separator!r} between two of them"
        return replace(fault, fix=f"{fault.fix}{between}") if isinstance(cell, str) else fault
    return tuple(float(label in names) for label in task.labels)


def _by_label(task: Task, cell: Mapping[str, float]) -> tuple[float, ...] | Fault:
    """The probabilities in the order of the task's labels; 0 for those that are not named."""
    if unknown := [name for name in cell if name not in task.labels]:
        return _unknown(task, unknown[0])
    return tuple(cell.get(label, 0.0) for label in task.labels)


def _unknown(task: Task, name: str) -> Fault:
    """The fault of a label that the task does not have."""
    known = tuple(task.label_values or task.names)
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    theirs = tasks_of_label(task, name)
    other = f"; that is a label of task {' or '.join(theirs)}" if theirs else ""
    return Fault(
        kind="unknown label",
        got=repr(name[:80]),
        fix=f"use one of {', '.join(known[:MAX_NAMED])}{more}{other}",
    )


def _place(task: Task, name: str) -> float | Fault:
    """The number of a label that has an order, or a fault."""
    if not name:
        return Fault(kind="no label")
    if name not in task.ordinal:
        return _unknown(task, name)
    return places_of(task.ordinal)[task.ordinal.index(name)]


def _number(spelled: str) -> float | Fault:
    """The finite number that a text spells, or a fault."""
    if not spelled:
        return Fault(kind="no label")
    try:
        number = float(spelled)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    return Fault(kind="the label is not a number", got=repr(spelled[:80]))


def _names(values: Sequence[object]) -> tuple[str, ...] | Fault:
    """The labels of a list, each once.

    What a list may hold in their place is told apart: ones and zeros, probabilities, objects.
    """
    if any(isinstance(value, bool) for value in values) or _is_one_hot(values):
        return Fault(
            kind="ones and zeros in the place of labels",
            got=json.dumps(values)[:80],
            fix='write the names of the labels that are true, such as ["billing", "bug"]',
        )
    if any(isinstance(value, float) and not value.is_integer() for value in values) or any(
        isinstance(value, dict) for value in values
    ):
        return Fault(
            kind="a list of scores in the place of labels",
            got=json.dumps(values, default=str)[:80],
            fix=_SOFT,
        )
    names = [_name(value) for value in values]
    if None in names or "" in names:
        return Fault(
            kind="a list of labels with something else than a label in it",
            got=json.dumps(values, default=str)[:80],
            fix="write texts or numbers in the list",
        )
    return tuple(dict.fromkeys(name for name in names if name))


def _is_one_hot(values: Sequence[object]) -> bool:
    """Whether a list has nothing but 0 and 1, and one of them twice, which no labels have."""
    return len(set(map(str, values))) < len(values) and all(value in (0, 1) for value in values)


def _name(value: object) -> str | None:
    """A label in a list as a CSV file would spell it; None for what is no label."""
    if not isinstance(value, str | int | float):
        return None
    text = plain_text(value)
    return None if text is None else text.strip()


def _probabilities(found: Mapping[object, object]) -> dict[str, float] | Fault:
    """The probability of each label; one without a value has none."""
    given = {str(name).strip(): value for name, value in found.items() if value is not None}
    wrong = {name: value for name, value in given.items() if not _is_probability(value)}
    if wrong or not given:
        return Fault(
            kind="a probability of a label outside of 0 to 1" if wrong else "no label",
            got=str(wrong)[:80] if wrong else None,
            fix=_SOFT,
        )
    return {name: float(str(value)) for name, value in given.items()}


def _is_probability(value: object) -> bool:
    """Whether a value is a number from 0 to 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= float(str(value)) <= 1


def _literal(text: str) -> object:
    """The list or the object that a text spells as JSON or as Python; else the text itself."""
    plain = text.strip()
    if plain[:1] + plain[-1:] not in ("[]", "{}"):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            found: object = read(plain)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | dict):
            return found
    return text
