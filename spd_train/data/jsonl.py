"""Rows of JSON Lines files: one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spd_train.data.rows import DataRow, Fault, Name, encoding_fault, type_name


def jsonl_rows(file: Path, text: str) -> Iterator[DataRow]:
    """One row for each line; blank lines are skipped."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json_row(file, number, line)


def _json_row(file: Path, number: int, line: str) -> DataRow:
    """The row of one line of JSON, or a fault."""
    if fault := encoding_fault([line]):
        return DataRow(file=file, line=number, fault=fault)
    repeated: set[Name] = set()

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object; names that stand in it twice are remembered. The outermost comes last."""
        value = dict(pairs)
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
    return DataRow(file=file, line=number, fields=value, repeated=frozenset(repeated))


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python's reader accepts and JSON does not have."""
    raise ValueError(f"{name} is no JSON; write null for what is missing")
