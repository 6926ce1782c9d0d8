"""One row of a data file, sound or broken, with the line that it stands on.

A row that cannot be read is a :class:`DataRow` with a :class:`Fault`. The reader stops at the row,
or skips it and goes on. A fault of a whole file is raised as ``BadData``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadData
from spd_train.data.formats import PARQUET, kind_of

Name = str | int


MEND = "correct the row"


# Bytes that are not UTF-8, as Python's "surrogateescape" carries them.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Why a row cannot be used.

    Attributes:
        kind: what is wrong, in words that all rows with the same fault share.
        got: what the row has instead.
        fix: what to do, if correcting the row is not enough.
    """

    kind: str
    got: str | None = None
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row of a file, before its fields have a meaning.

    Attributes:
        file: the file.
        line: number of the line from 1; of the row in a Parquet file, which has no lines.
        fields: the fields by column name or position, as text, JSON or Parquet has them; empty if
            the row has a fault.
        header: the column names that all rows of the file share; None if each row has its own.
        repeated: names that occur more than once in the row's JSON object.
        repeated_inside: the same of the objects that it holds.
        fault: why the row could not be read; None for a sound row.
    """

    file: Path
    line: int
    fields: Mapping[Name, Any] = field(default_factory=dict)
    header: Sequence[Name] | None = None
    repeated: frozenset[Name] = frozenset()
    repeated_inside: frozenset[Name] = frozenset()
    fault: Fault | None = None

    @property
    def place(self) -> str:
        """File and line of the row, for an error."""
        unit = "row" if kind_of(self.file) == PARQUET else "line"
        return f"{self.file}, {unit} {self.line}"

    @property
    def names(self) -> Sequence[Name]:
        """The columns that the row has, or should have."""
        return tuple(self.fields) if self.header is None else self.header

    def error(self, fault: Fault, *, skippable: bool) -> BadData:
        """The error for a fault of this row; ``skippable`` if the user may leave the row out."""
        more = ", or use --skip-broken-rows" if skippable else ""
        return BadData(
            f"{self.place}: {fault.kind}", got=fault.got, fix=f"{fault.fix or MEND}{more}"
        )


def plain_in(row: DataRow, column: Name) -> str | Fault:
    """The value of a column as a CSV file would spell it, or the fault that it has no such form."""
    value = row.fields[column]
    if value is None:
        return Fault(kind=f"nothing in column {column!r}")
    if isinstance(value, (list, dict, bytes)):
        return Fault(kind=f"column {column!r} holds {type_name(value)}, not a text")
    text = plain_text(value)
    if text is None:
        return Fault(
            kind=f"half of a surrogate pair in column {column!r}, which is not valid Unicode"
        )
    return text


def plain_text(value: object) -> str | None:
    """A single value as a CSV file would spell it; None if it is not valid Unicode."""
    if not isinstance(value, str):
        return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)
    if not value.isascii() and _HALF_OF_A_PAIR.search(value):
        return None
    return value


def type_name(value: object) -> str:
    """The type of a value, in words for an error."""
    match value:
        case list():
            return "a list"
        case dict():
            return "an object"
        case bytes():
            return "bytes"
        case None:
            return "nothing"
        case str():
            return "a text"
        case _:
            return "a number"


def encoding_fault(fields: Sequence[str]) -> Fault | None:
    """The fault of fields with a byte that is not UTF-8; None if there is none."""
    for text in fields:
        if not text.isascii() and (escaped := _ESCAPED_BYTE.search(text)):
            byte = f"byte 0x{ord(escaped[0]) - 0xDC00:02x}"
            return Fault(kind="not UTF-8", got=byte, fix="save the file as UTF-8")
    return None
