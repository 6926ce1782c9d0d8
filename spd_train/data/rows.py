"""Rows of CSV, TSV and JSONL files, each with the line it stands on.

Real files have traps: a byte-order mark, no header, quotes that are plain characters (GLUE's TSV),
a last line without an end, separators inside quotes. What cannot be read is named by file and line.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadData

SUFFIXES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a file before its fields have a meaning; ``line`` counts from 1."""

    file: Path
    line: int
    fields: Mapping[str | int, str]

    @property
    def place(self) -> str:
        """Where the row is, for an error."""
        return f"{self.file}, line {self.line}"


def read_rows(file: Path, *, header: bool = True) -> Iterator[Row]:
    """The rows of one file by column name, or by position where there is no header.

    TSV is read as GLUE writes it: a tab always separates and quotes are plain characters. CSV has
    the usual quoting. JSONL has one object a line.

    Raises:
        BadData: unreadable, not UTF-8, or a row with more or fewer fields than the header.
    """
    text = _text_of(file)
    match file.suffix.lower():
        case ".jsonl":
            yield from _jsonl_rows(file, text)
        case ".csv":
            yield from _csv_rows(file, text)
        case _:
            yield from _tsv_rows(file, text, header=header)


def _text_of(file: Path) -> str:
    """The file as text, without a byte-order mark; the line of the first bad byte is named."""
    try:
        content = file.read_bytes()
    except OSError as err:
        raise BadData(f"cannot read {file}", got=err.strerror, fix="check the path") from err
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = content.count(b"\n", 0, err.start) + 1
        raise BadData(
            f"{file}, line {line}: not UTF-8",
            got=f"byte 0x{content[err.start]:02x}",
            fix="save the file as UTF-8",
        ) from err


def _tsv_rows(file: Path, text: str, *, header: bool) -> Iterator[Row]:
    """Rows of tab-separated fields; only a line feed ends a line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        return
    names: Sequence[str | int]
    names = lines[0].split("\t") if header else range(len(lines[0].split("\t")))
    for number, line in enumerate(lines[header:], start=1 + header):
        yield _row(file, number, names, line.split("\t"))


def _csv_rows(file: Path, text: str) -> Iterator[Row]:
    """Rows of a CSV file with a header; a quoted field may span lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: Sequence[str | int] | None = None
    start = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as err:
            raise BadData(
                f"{file}, line {start}: not CSV", got=err, fix="mend the quotes of that row"
            ) from err
        if fields is None:
            return
        if names is None:
            names = list(fields)
        elif fields:
            yield _row(file, start, names, fields)
        start = reader.line_num + 1


def _jsonl_rows(file: Path, text: str) -> Iterator[Row]:
    """One JSON object a line; blank lines are passed over."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as err:
            raise BadData(f"{file}, line {number}: not JSON", got=err, fix="mend that row") from err
        if not isinstance(value, dict):
            raise BadData(
                f"{file}, line {number}: not a JSON object",
                got=type(value).__name__,
                fix='write rows such as {"text": "...", "label": "..."}',
            )
        fields: dict[str | int, str] = {k: _plain(v) for k, v in value.items() if v is not None}
        yield Row(file=file, line=number, fields=fields)


def _plain(value: object) -> str:
    """A JSON value as the text that a CSV file would hold."""
    return value if isinstance(value, str) else json.dumps(value)


def _row(file: Path, line: int, names: Sequence[str | int], fields: Sequence[str]) -> Row:
    """One row; one with too many or too few fields keeps none, to be named when it is used."""
    whole = len(fields) == len(names)
    return Row(file=file, line=line, fields=dict(zip(names, fields, strict=True)) if whole else {})
