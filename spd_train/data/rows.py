"""Rows of CSV, TSV, JSONL and Parquet files, each with the line it stands on.

A row that cannot be read is a :class:`DataRow` with a :class:`Fault`. The reader stops at it, or
passes over it and goes on. A fault of a whole file is raised.

Two dialects of TSV differ in one thing. In GLUE's files a quote is a plain character. In a file
that pandas or Excel wrote, quotes surround a field that holds a tab, a line break or a quote.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadData
from spd_train.data.formats import CSV, JSONL, PARQUET, TSV, content_of, kind_of

Name = str | int

MEND = "mend the row"
_DELIMITERS: Mapping[str, str] = {CSV: ",", TSV: "\t"}
_DELIMITER_NAMES: Mapping[str, str] = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# Longer than any field of a file that fits in memory; a C long holds it everywhere.
_LONGEST_FIELD = 2**31 - 1
# Bytes that are not UTF-8, as Python's "surrogateescape" carries them.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_QUOTES = (
    "write a field that holds a quote in quotes, with its own quotes doubled, as pandas and Excel "
    "do; GLUE's own files are read without quoting, by --task"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Why a row cannot be used.

    Attributes:
        kind: what is wrong, in words that all rows with this fault share.
        got: what the row has instead.
        fix: what to do about it, where mending the row does not say enough.
    """

    kind: str
    got: str | None = None
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row of a file before its fields have a meaning.

    Attributes:
        line: counts from 1; of a Parquet file, which has no lines, the row.
        fields: what the row holds, as text or as JSON or Parquet has it; empty if it has a fault.
        header: the column names that all rows of the file share; None where each row has its own.
        repeated: names that stand in the row's JSON object more than once.
        fault: why the row could not be read; None for a sound one.
    """

    file: Path
    line: int
    fields: Mapping[Name, Any] = field(default_factory=dict)
    header: Sequence[Name] | None = None
    repeated: frozenset[Name] = frozenset()
    fault: Fault | None = None

    @property
    def place(self) -> str:
        """Where the row is, for an error."""
        unit = "row" if kind_of(self.file) == PARQUET else "line"
        return f"{self.file}, {unit} {self.line}"

    @property
    def names(self) -> Sequence[Name]:
        """The columns that the row has, or should have."""
        return tuple(self.fields) if self.header is None else self.header

    def error(self, fault: Fault, *, skippable: bool) -> BadData:
        """The error for a fault of this row; ``skippable`` where the user may leave it out."""
        more = ", or use --skip-broken-rows" if skippable else ""
        return BadData(
            f"{self.place}: {fault.kind}", got=fault.got, fix=f"{fault.fix or MEND}{more}"
        )


def read_rows(file: Path, *, header: bool = True, quotes: bool = True) -> Iterator[DataRow]:
    """The rows of one file by column name, or by position where there is no header.

    Args:
        file: .csv, .tsv, .jsonl (also .json and .ndjson) or .parquet; the text ones may be
            compressed.
        header: the first line of a TSV file names its columns.
        quotes: quotes surround fields of a TSV file, as pandas and Excel write it; False for
            GLUE's files, where a quote is a plain character.

    Raises:
        BadData: the file cannot be read, or is of another kind than its name says.
    """
    kind = kind_of(file)
    if kind == PARQUET:
        from spd_train.data.parquet import parquet_rows

        yield from parquet_rows(file)
        return
    text = content_of(file).decode("utf-8", "surrogateescape")
    if kind == JSONL:
        yield from _jsonl_rows(file, text)
    elif kind == TSV and not quotes:
        yield from _raw_rows(file, text, header=header)
    else:
        yield from _quoted_rows(file, text, _DELIMITERS[kind])


def _raw_rows(file: Path, text: str, *, header: bool) -> Iterator[DataRow]:
    """Rows of tab-separated fields without quoting; only a line feed ends a line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    first = lines[0].split("\t")
    names: Sequence[Name] = _header(file, first) if header else range(len(first))
    for number, line in enumerate(lines[header:], start=1 + header):
        yield _row(file, number, names, line.split("\t"))


def _quoted_rows(file: Path, text: str, delimiter: str) -> Iterator[DataRow]:
    """Rows of a file with a header in which a quoted field may hold delimiters and span lines."""
    lines = list(io.StringIO(text, newline=""))
    _refuse_other_delimiter(file, lines[0], delimiter)
    names: Sequence[Name] | None = None
    for number, fields in _split(lines, delimiter):
        if names is None:
            names = _header(file, fields)
        elif isinstance(fields, csv.Error):
            fault = Fault(kind="quotes that do not match", got=str(fields), fix=_QUOTES)
            yield DataRow(file=file, line=number, header=names, fault=fault)
        elif fields:
            yield _row(file, number, names, fields)


def _split(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The fields of each row, or why it has none, with the number of its first line.

    A quote that nothing closes swallows the lines after it. So after a row that is broken, reading
    goes on at the very next line; of the lines that it swallowed, those count that are sound by
    themselves.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    sound = _sound_line(delimiter)
    start = swallowed = 0
    while start < len(lines):
        begin = start
        reader = csv.reader(map(lines.__getitem__, range(begin, len(lines))), strict=True,
                            delimiter=delimiter)  # fmt: skip
        try:
            for fields in reader:
                end = begin + reader.line_num
                if start < swallowed and not sound.fullmatch("".join(lines[start:end])):
                    yield start + 1, csv.Error("a quote inside a field that is not quoted")
                else:
                    yield start + 1, fields
                start = end
        except csv.Error as err:
            yield start + 1, err
            swallowed = max(swallowed, begin + reader.line_num)
            start += 1


def _sound_line(delimiter: str) -> re.Pattern[str]:
    """What a row looks like whose quotes all stand around fields, by RFC 4180."""
    one = rf'(?:"(?:[^"]|"")*"|[^"{re.escape(delimiter)}\r\n]*)'
    return re.compile(rf"{one}(?:{re.escape(delimiter)}{one})*[\r\n]*")


def _header(file: Path, fields: "list[str] | csv.Error") -> tuple[Name, ...]:
    """The names of the columns.

    Raises:
        BadData: the first line does not hold any.
    """
    if isinstance(fields, csv.Error):
        raise BadData(f"{file}, line 1: quotes that do not match", got=fields, fix=_QUOTES)
    if fault := _encoding_fault(fields):
        raise BadData(f"{file}, line 1: {fault.kind}", got=fault.got, fix=str(fault.fix))
    return tuple(fields)


def _refuse_other_delimiter(file: Path, first: str, delimiter: str) -> None:
    """Refuse a file whose first line holds no delimiter of its kind, but one of another kind.

    Raises:
        BadData: it is so.
    """
    others = [d for d in _DELIMITER_NAMES if d in first and d != delimiter]
    if delimiter in first or not others:
        return
    found = max(others, key=first.count)
    rename = {"\t": ", or name it .tsv", ",": ", or name it .csv"}.get(found, "")
    raise BadData(
        f"{file} is separated by {_DELIMITER_NAMES[found]}, not by {_DELIMITER_NAMES[delimiter]}",
        got=f"the first line {first.strip()[:80]!r}",
        fix=f"save it with {_DELIMITER_NAMES[delimiter]}{rename}",
    )


def other_delimiter(names: Sequence[Name], wanted: Sequence[Name]) -> str | None:
    """What separates the columns of a header that was split at something else, in words.

    Args:
        names: the header as it was split.
        wanted: the columns that are looked for in it.
    """
    for delimiter, name in _DELIMITER_NAMES.items():
        parts = {part.strip(' "') for n in names for part in str(n).split(delimiter)}
        if len(parts) > len(set(names)) and parts.issuperset(wanted):
            return name
    return None


def _jsonl_rows(file: Path, text: str) -> Iterator[DataRow]:
    """One JSON object a line; blank lines are passed over."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json_row(file, number, line)


def _json_row(file: Path, number: int, line: str) -> DataRow:
    """The row of one line of JSON."""
    if fault := _encoding_fault([line]):
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
    """Python's reader takes NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is no JSON; write null for what is missing")


def type_name(value: object) -> str:
    """What a value that is no text is, in words."""
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
    return "a number"


def _row(file: Path, line: int, names: Sequence[Name], fields: Sequence[str]) -> DataRow:
    """One row of a table."""
    fault = _encoding_fault(fields)
    if fault is None and len(fields) != len(names):
        fault = Fault(
            kind="another number of fields than the first line has",
            got=f"{len(fields)}, the first line has {len(names)}",
        )
    if fault is not None:
        return DataRow(file=file, line=line, header=names, fault=fault)
    return DataRow(file=file, line=line, header=names, fields=dict(zip(names, fields, strict=True)))


def _encoding_fault(fields: Sequence[str]) -> Fault | None:
    """The fault of fields that hold a byte which is not UTF-8."""
    for text in fields:
        if not text.isascii() and (found := _ESCAPED_BYTE.search(text)):
            byte = f"byte 0x{ord(found[0]) - 0xDC00:02x}"
            return Fault(kind="not UTF-8", got=byte, fix="save the file as UTF-8")
    return None
