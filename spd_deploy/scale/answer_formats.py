"""Chunks of answered rows as bytes of JSON Lines, CSV or TSV, compressed by the file's name.

Each chunk is a piece that stands alone. A compressed file is a chain of members, which gzip,
bzip2, xz and Zstandard define, so that a file is continued by appending to it.
"""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import BadData, BadSetting, OptionConflict
from spd_deploy.domain.extras import require_extras
from spd_deploy.scale.answer_columns import AnswerColumns

if TYPE_CHECKING:
    from spd_train.data.rows import DataRow

KINDS = ("jsonl", "csv", "tsv", "parquet")
TEXT_KINDS = KINDS[:3]
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_ALIASES = {"ndjson": "jsonl", "json": "jsonl"}
_OTHER_NAME = "name --output .jsonl, .csv, .tsv (also .gz, .bz2, .xz or .zst) or .parquet"


def zstandard(content: bytes) -> bytes:
    """Compress into a frame, which may be followed by others in a file."""
    import pyarrow

    found = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(found, "zstd") as stream:
        stream.write(content)
    return bytes(found.getvalue())


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFormat:
    """How answers are written.

    Attributes:
        kind: one of :data:`KINDS`.
        compression: the suffix that names it, such as ``gz``; empty for none.
    """

    kind: str
    compression: str = ""

    def __post_init__(self) -> None:
        """Refuse a format that cannot be written here.

        Raises:
            BadSetting: a compressed Parquet file.
            Unavailable: pyarrow is missing.
        """
        if self.kind == "parquet":
            if self.compression:
                raise BadSetting(
                    "a Parquet file is compressed inside",
                    got=f".{self.compression}",
                    fix="leave that suffix out",
                )
            require_extras("writing Parquet", "parquet", otherwise="write .csv or .jsonl instead")
        if self.compression == "zst":
            require_extras(
                "writing Zstandard (.zst)", "parquet", otherwise="compress with gzip (.gz)"
            )

    @property
    def tabular(self) -> bool:
        """Whether all rows have the same columns."""
        return self.kind != "jsonl"

    def __str__(self) -> str:
        """The suffix of such a file without its first dot, such as ``csv.gz``."""
        return f"{self.kind}.{self.compression}".rstrip(".")


def format_of(output: Path | None, requested: str | None, read: str) -> AnswerFormat:
    """How answers are written: as requested, by the name of the file, or as what was ``read``.

    Raises:
        OptionConflict: the name of the file promises a kind that is not written.
    """
    if output is None:
        kind = requested or read
        if kind == "parquet" and requested is not None:
            raise OptionConflict(
                "Parquet is not written to standard output",
                got="no --output",
                fix="name a file with --output",
            )
        return AnswerFormat(kind="jsonl" if kind == "parquet" else kind)
    suffixes = [suffix.lower().removeprefix(".") for suffix in output.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSORS else ""
    if requested is not None:
        return AnswerFormat(kind=requested, compression=compression)
    kind = _ALIASES.get(suffixes[-1], suffixes[-1]) if suffixes else "jsonl"
    if kind not in KINDS:
        raise OptionConflict(
            f"answers are not written as .{kind}",
            got=output.name,
            fix=f"{_OTHER_NAME}, or say --output-format",
        )
    return AnswerFormat(kind=kind, compression=compression)


def text_of(
    format_: AnswerFormat,
    columns: AnswerColumns,
    rows: Sequence["DataRow"],
    answers: Sequence[Mapping[str, Any]],
    *,
    first: bool,
) -> bytes:
    """One chunk as bytes of text; a table's first one begins with the header.

    Raises:
        BadData: a row holds what the format has no form for.
    """
    joined = [columns.joined(row, answer) for row, answer in zip(rows, answers, strict=True)]
    if format_.kind == "jsonl":
        lines = [_json_line(row, fields) for row, fields in zip(rows, joined, strict=True)]
        return COMPRESSORS[format_.compression]("".join(lines).encode())
    text = _Lines()
    names = [*columns.of_rows, *columns.names.values()]
    writer = csv.DictWriter(text, names, restval="", delimiter=_DELIMITERS[format_.kind])
    if first:
        writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in fields.items()} for fields in joined)
    try:
        return COMPRESSORS[format_.compression]("".join(text.lines).encode())
    except UnicodeEncodeError as err:
        raise _no_unicode(rows, joined) from err


class _Lines:
    """Rows of a table that end in a line feed.

    The writer of ``csv`` puts a field in quotes if it holds a character of the line end. So that it
    does so for a carriage return too, it writes both, and the carriage return is taken off here.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Keep one row; the writer calls it once for each."""
        self.lines.append(line.removesuffix("\r\n") + "\n")


def _json_line(row: "DataRow", fields: Mapping[str, Any]) -> str:
    """One line of JSON; what JSON has no kind for, such as a date of a Parquet file, is text."""
    try:
        line = json.dumps(fields, ensure_ascii=False, default=str, allow_nan=False)
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        line = json.dumps(fields, default=str, allow_nan=False)
    except ValueError as err:
        raise BadData(
            f"{row.place}: NaN or an infinite number, which JSON does not have",
            fix="write the answers as .csv or .parquet",
        ) from err
    return line + "\n"


def _cell(value: Any) -> Any:
    """A value as a table has it: true, false, lists and objects as JSON has them."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _no_unicode(rows: Sequence["DataRow"], joined: Sequence[Mapping[str, Any]]) -> BadData:
    """The error for the first row that UTF-8 cannot carry."""
    texts = ("".join(str(_cell(value)) for value in fields.values()) for fields in joined)
    unfit = next(
        row
        for row, text in zip(rows, texts, strict=True)
        if any("\ud800" <= character <= "\udfff" for character in text)
    )
    return BadData(
        f"{unfit.place}: half of a surrogate pair in a field, which is not Unicode",
        fix="write the answers as .jsonl, which can escape it",
    )
