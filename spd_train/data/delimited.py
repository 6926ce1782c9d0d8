"""Rows of CSV and TSV files.

Two dialects of TSV differ in one thing. In GLUE's files a quote is a plain character. In a file
that pandas or Excel wrote, quotes surround a field that holds a tab, a line break or a quote.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_train.data.formats import CSV, TSV
from spd_train.data.rows import DataRow, Fault, Name, encoding_fault

DELIMITERS: Mapping[str, str] = {CSV: ",", TSV: "\t"}


_DELIMITER_NAMES: Mapping[str, str] = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


# The largest C long on every system: no field that fits in memory is longer.
_LONGEST_FIELD = 2**31 - 1
# In characters. Behind an open quote the whole file would be one row, and be held in memory.
_LONGEST_ROW = 1 << 26


_QUOTES = (
    "write a field that holds a quote in quotes, with its own quotes doubled, as pandas and Excel "
    "do; GLUE's own files are read without quoting, by --task"
)


def raw_rows(file: Path, lines: Iterator[str], *, header: bool) -> Iterator[DataRow]:
    """Rows of tab-separated fields without quoting; only a line feed ends a line."""
    names: Sequence[Name] | None = None
    for number, line in enumerate(lines, start=1):
        fields = line.removesuffix("\n").removesuffix("\r").split("\t")
        if names is None:
            names = _header(file, fields) if header else range(len(fields))
            if header:
                continue
        yield _row(file, number, names, fields)


def quoted_rows(file: Path, lines: Iterator[str], delimiter: str) -> Iterator[DataRow]:
    """Rows of a file with a header, in which a quoted field may hold delimiters and line breaks."""
    first = next(lines)
    _refuse_other_delimiter(file, first, delimiter)
    names: Sequence[Name] | None = None
    for number, fields in _split(chain([first], lines), delimiter):
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


def _split(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The fields of each row with the number of its first line, or the error of a broken row.

    A quote that is never closed takes in the lines after it, up to :data:`_LONGEST_ROW`. After a
    broken row, reading continues with the very next line. Of the lines that were taken in, only
    those that are sound alone are returned.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    sound = _sound_line(delimiter)
    ahead = _LinesAhead(lines)
    start = swallowed = 0
    while not ahead.at_end:
        begin = start
        reader = csv.reader(ahead.read(), strict=True, delimiter=delimiter)
        try:
            for fields in reader:
                row = ahead.settle(begin + reader.line_num - start)
                if start < swallowed and not sound.fullmatch("".join(row)):
                    yield start + 1, csv.Error("a quote inside a field that is not quoted")
                else:
                    yield start + 1, fields
                start = begin + reader.line_num
        except csv.Error as err:
            yield start + 1, err
            swallowed = max(swallowed, begin + reader.line_num)
            ahead.settle(1)
            start += 1


class _LinesAhead:
    """Lines that a reader took in and that may have to be read again, since its row is broken."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._ahead: deque[str] = deque()
        self._ended = False

    @property
    def at_end(self) -> bool:
        """Whether every line was read and settled."""
        return self._ended and not self._ahead

    def read(self) -> Iterator[str]:
        """The lines from the first that is not settled on.

        Raises:
            csv.Error: a row is longer than any.
        """
        self._length = sum(map(len, self._ahead))
        yield from list(self._ahead)
        for line in self._lines:
            self._ahead.append(line)
            self._length += len(line)
            if self._length > _LONGEST_ROW:
                raise csv.Error(f"a quote that is open for more than {_LONGEST_ROW} characters")
            yield line
        self._ended = True

    def settle(self, count: int) -> list[str]:
        """The first ``count`` lines, which are not read again."""
        settled = [self._ahead.popleft() for _ in range(count)]
        self._length -= sum(map(len, settled))
        return settled


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
