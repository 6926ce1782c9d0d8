"""Rows of JSON Lines files: one object a line."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from spd_train.data.formats import one_document
from spd_train.data.rows import DataRow, Fault, Name, encoding_fault, type_name

# An indented object of more lines is taken for broken rows.
_MAX_LINES = 100_000


def jsonl_rows(file: Path, lines: Iterator[str]) -> Iterator[DataRow]:
    """One row for each line; blank lines are skipped.

    Raises:
        BadData: all lines are one JSON object.
    """
    numbered = ((i, line) for i, line in enumerate(lines, start=1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    row = _json_row(file, *first)
    more: list[tuple[int, str]] = []  # read only where it matters: a pipe may wait for our answer
    if row.fault is not None and first[1].lstrip().startswith("{"):
        more += islice(numbered, _MAX_LINES + 1)
        _refuse_one_object(file, [first, *more])
    elif _is_columns(row.fields):
        more += islice(numbered, 1)
        if not more:
            raise one_document(file, "object")
    yield row
    for number, line in chain(more, numbered):
        yield _json_row(file, number, line)


def _refuse_one_object(file: Path, lines: Iterable[tuple[int, str]]) -> None:
    """Refuse lines that are one object together."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads("".join(line[1] for line in lines)), dict):
            raise one_document(file, "object")


def _is_columns(fields: Mapping[Name, Any]) -> bool:
    """Whether an object holds whole columns, as pandas writes a table without further options."""
    return bool(fields) and all(isinstance(value, list | dict) for value in fields.values())


def _json_row(file: Path, number: int, line: str) -> DataRow:
    """The row of one line of JSON, or a fault."""
    if fault := encoding_fault([line]):
        return DataRow(file=file, line=number, fault=fault)
    repeated: set[Name] = set()
    inside: set[Name] = set()

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object; names that stand in it twice are remembered. The outermost comes last."""
        value = dict(pairs)
        inside.update(repeated)
        repeated.clear()
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            repeated.update(name for name in value if names.count(name) > 1)
        return value

    try:
        value = json.loads(line, object_pairs_hook=gather, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        return DataRow(file=file, line=number, fault=Fault(kind="not JSON", got=str(err)))
    if not isinstance(value, dict):
        fault = Fault(
            kind="not a JSON object",
            got=type_name(value),
            fix='write rows such as {"text": "...", "label": "..."}',
        )
        return DataRow(file=file, line=number, fault=fault)
    return DataRow(
        file=file,
        line=number,
        fields=value,
        repeated=frozenset(repeated),
        repeated_inside=frozenset(inside),
    )


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python's reader accepts and JSON does not have."""
    raise ValueError(f"{name} is no JSON; write null for what is missing")
