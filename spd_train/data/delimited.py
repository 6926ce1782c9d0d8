"""Rows of CSV and TSV files.

Two dialects of TSV differ in one thing. In GLUE's files a quote is a plain character. In a file
that pandas or Excel wrote, quotes surround a field that holds a tab, a line break or a quote.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_train.data.formats import CSV, TSV
from spd_train.data.rows import DataRow, Fault, Name, encoding_fault

DELIMITERS: Mapping[str, str] = {CSV: ",", TSV: "\t"}


_DELIMITER_NAMES: Mapping[str, str] = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


# The largest C long on every system: no field that fits in memory is longer.
_LONGEST_FIELD = 2**31 - 1


_QUOTES = (
    "write a field that holds a quote in quotes, with its own quotes doubled, as pandas and Excel "
    "do; GLUE's own files are read without quoting, by --task"
)


def raw_rows(file: Path, text: str, *, header: bool) -> Iterator[DataRow]:
    """Rows of tab-separated fields without quoting; only a line feed ends a line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[-1]:
        lines.pop()
    first = lines[0].split("\t")
    names: Sequence[Name] = _header(file, first) if header else range(len(first))
    for number, line in enumerate(lines[header:], start=1 + header):
        yield _row(file, number, names, line.split("\t"))


def quoted_rows(file: Path, text: str, delimiter: str) -> Iterator[DataRow]:
    """Rows of a file with a header, in which a quoted field may hold delimiters and line breaks."""
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


def other_delimiter(names: Sequence[Name], wanted: Sequence[Name]) -> str | None:
    """The name of the delimiter that the file really has; None if it is not known.

    Args:
        names: the header, split at the delimiter of the file's kind.
        wanted: the columns that should be in it.
    """
    for delimiter, name in _DELIMITER_NAMES.items():
        parts = {part.strip(' "') for n in names for part in str(n).split(delimiter)}
        if len(parts) > len(set(names)) and parts.issuperset(wanted):
            return name
    return None


def _split(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The fields of each row with the number of its first line, or the error of a broken row.

    A quote that is never closed takes in the lines after it. After a broken row, reading continues
    with the very next line. Of the lines that were taken in, only those that are sound alone are
    returned.
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
    """A pattern of rows whose quotes all surround fields, by RFC 4180."""
    one = rf'(?:"(?:[^"]|"")*"|[^"{re.escape(delimiter)}\r\n]*)'
    return re.compile(rf"{one}(?:{re.escape(delimiter)}{one})*[\r\n]*")


def _header(file: Path, fields: "list[str] | csv.Error") -> tuple[Name, ...]:
    """The names of the columns.

    Raises:
        BadData: the first line holds none.
    """
    if isinstance(fields, csv.Error):
        raise BadData(f"{file}, line 1: quotes that do not match", got=fields, fix=_QUOTES)
    if fault := encoding_fault(fields):
        raise BadData(f"{file}, line 1: {fault.kind}", got=fault.got, fix=str(fault.fix))
    return tuple(fields)


def _refuse_other_delimiter(file: Path, first: str, delimiter: str) -> None:
    """Refuse a file whose first line has another delimiter than its kind.

    Raises:
        BadData: the first line has no delimiter of the file's kind, but one of another kind.
    """
    others = [d for d in _DELIMITER_NAMES if d in first and d != delimiter]
    if delimiter in first or not others:
        return
    other = max(others, key=first.count)
    rename = {"\t": ", or name it .tsv", ",": ", or name it .csv"}.get(other, "")
    raise BadData(
        f"{file} is separated by {_DELIMITER_NAMES[other]}, not by {_DELIMITER_NAMES[delimiter]}",
        got=f"the first line {first.strip()[:80]!r}",
        fix=f"save it with {_DELIMITER_NAMES[delimiter]}{rename}",
    )


def _row(file: Path, line: int, names: Sequence[Name], fields: Sequence[str]) -> DataRow:
    """One row as a mapping from column to field, or a fault."""
    fault = encoding_fault(fields)
    if fault is None and len(fields) != len(names):
        fault = Fault(
            kind="another number of fields than the first line has",
            got=f"{len(fields)}, the first line has {len(names)}",
        )
    if fault is not None:
        return DataRow(file=file, line=line, header=names, fault=fault)
    return DataRow(file=file, line=line, header=names, fields=dict(zip(names, fields, strict=True)))
