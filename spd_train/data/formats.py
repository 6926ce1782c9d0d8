"""The kinds of data files, by their names and by their first bytes.

If the name and the content of a file disagree, the error says what the file really is: a
spreadsheet, a JSON array, UTF-16 text, or a compressed file without its suffix.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadData

CSV, TSV, JSONL, PARQUET = "csv", "tsv", "jsonl", "parquet"

_KINDS: Mapping[str, str] = {
    ".csv": CSV,
    ".tsv": TSV,
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSONL,
    ".parquet": PARQUET,
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

SUFFIXES = tuple(
    kind + packed
    for kind in _KINDS
    for packed in (("",) if kind == ".parquet" else ("", *_COMPRESSED))
)
# Similarity (difflib's ratio) from which a name is suggested in place of a missing one.
LIKE = 0.8
SUPPORTED = ".csv, .tsv, .jsonl or .parquet; text also as .gz, .bz2, .xz or .zst"

_CONVERT = "save it as one of " + SUPPORTED
_SUFFIX = "add {} to its name"
_LINES = 'write one object a line, as pandas does with to_json(..., orient="records", lines=True)'

# First bytes of files that are often given by mistake: what they are, and what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip file or an Excel workbook (.xlsx)", _CONVERT),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", _CONVERT),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text, as Excel's 'Unicode text' is", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x1f\x8b", "compressed by gzip", _SUFFIX.format(".gz")),
    (b"BZh", "compressed by bzip2", _SUFFIX.format(".bz2")),
    (b"\xfd7zXZ\x00", "compressed by xz", _SUFFIX.format(".xz")),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", _SUFFIX.format(".zst")),
    (b"PAR1", "a Parquet file", "give it the suffix .parquet"),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"SQLite format 3", "an SQLite database", _CONVERT),
    (b"%PDF", "a PDF", _CONVERT),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull"),
    (b"<!DOCTYPE", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"sep=", "a CSV file whose first line is Excel's sep=, not the header", "remove that line"),
)

_SAMPLE_BYTES = 4096
_SHOWN_BYTES = 60
_LONGEST_MAGIC = max(len(magic) for magic, _, _ in _OTHERS)


def kind_of(file: Path) -> str:
    """The kind of a file (``csv``, ``tsv``, ``jsonl``, ``parquet``) by its name.

    Raises:
        BadData: spd does not read this kind.
    """
    name = file.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return _KINDS["." + suffix.split(".")[1]]
    if file.is_dir():
        raise BadData(f"{file} is a folder, and a file is needed", fix="name a file in it")
    raise BadData(
        f"{file} is of a kind that spd does not read",
        got=f"the suffix {file.suffix!r}{_really(file)}",
        fix=_CONVERT,
    )


def stem_of(file: Path) -> str:
    """The file's name without the suffixes of its kind and compression."""
    ends = (s for s in sorted(SUFFIXES, key=len, reverse=True) if file.name.lower().endswith(s))
    return file.name[: -len(next(ends, file.suffix)) or None]


def refuse_no_parquet(file: Path) -> None:
    """Refuse a file that is named .parquet and is not a Parquet file.

    Raises:
        BadData: the file cannot be read or is of another kind.
    """
    try:
        with file.open("rb") as stream:
            first = stream.read(_LONGEST_MAGIC)
    except OSError as err:
        raise BadData(f"cannot read {file}", got=err.strerror, fix=check_path(file)) from err
    if not first.startswith(b"PAR1"):
        what = what_is(first) or ("an empty file" if not first else "another kind of file")
        raise BadData(f"{file} is not a Parquet file", got=what, fix=_CONVERT)


def what_is(content: bytes) -> str | None:
    """The kind of a file that starts with these bytes, in words; None if it may be text."""
    return next((what for magic, what, _ in _OTHERS if content.startswith(magic)), None)


def refuse_others(file: Path, head: bytes) -> None:
    """Refuse content that is no text, a JSON array, and JSON Lines and tables taken for another.

    Args:
        file: its name says what it should be.
        head: the first bytes of it, decompressed.
    """
    for magic, what, fix in _OTHERS:
        if head.startswith(magic):
            raise BadData(f"{file} is {what}", fix=fix)
    if kind_of(file) == JSONL:
        if _is_json_array(head):
            raise one_document(file, "array")
        _refuse_table(file, head)
    elif _is_json_array(head):
        raise BadData(f"{file} is one JSON array, not {kind_of(file).upper()}", fix=_LINES)
    elif isinstance(_json(head.strip().partition(b"\n")[0]), dict):
        raise BadData(f"{file} is JSON Lines, not {kind_of(file).upper()}", fix="name it .jsonl")


def one_document(file: Path, kind: str) -> BadData:
    """The error for a file that is one JSON value, of this kind, in the place of JSON Lines."""
    return BadData(f"{file} is one JSON {kind}, not JSON Lines", fix=_LINES)


def _refuse_table(file: Path, content: bytes) -> None:
    """Refuse a table with the name of JSON Lines; a file with broken lines has good ones too."""
    lines = [line.strip() for line in content[:_SAMPLE_BYTES].splitlines() if line.strip()]
    starts_as_json = any(line[:1] in b"{[" for line in lines)
    for separator, suffix in ((b"\t", ".tsv"), (b",", ".csv")):
        if not starts_as_json and len(lines) > 1 and all(separator in line for line in lines[:2]):
            raise BadData(
                f"{file} is a table, not JSON Lines",
                got=f"the first line {lines[0][:_SHOWN_BYTES].decode('utf-8', 'replace')!r}",
                fix=f"name it {suffix}",
            )


def _is_json_array(content: bytes) -> bool:
    """Whether the content starts with an array of objects. A row may be an array on its line."""
    head = content[:_SAMPLE_BYTES].lstrip()
    return head.startswith(b"[") and head[1:].lstrip()[:1] in (b"{", b"", b"]")


def _json(content: bytes) -> Any:
    """The JSON value that the content is as a whole; None if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _really(file: Path) -> str:
    """The kind of an unknown file by its content, for an error; empty if that is not known."""
    try:
        with file.open("rb") as stream:
            what = what_is(stream.read(_LONGEST_MAGIC))
    except OSError:
        return ""
    return f", it is {what}" if what else ""


def check_path(file: Path) -> str:
    """The remedy for a missing file: a similar name, if there is one."""
    from difflib import get_close_matches

    try:
        names = [p.name for p in file.parent.iterdir()]
    except OSError:
        names = []
    close = get_close_matches(file.name, names, n=1, cutoff=LIKE)
    return f"did you mean {file.parent / close[0]}?" if close else "check the path"
