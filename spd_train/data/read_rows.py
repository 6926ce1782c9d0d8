"""Read a CSV, TSV, JSONL or Parquet file row by row."""

from collections.abc import Iterator
from pathlib import Path

from spd_train.data.delimited import DELIMITERS, quoted_rows, raw_rows
from spd_train.data.formats import JSONL, PARQUET, TSV, content_of, kind_of
from spd_train.data.jsonl import jsonl_rows
from spd_train.data.parquet import parquet_rows
from spd_train.data.rows import DataRow


def read_rows(file: Path, *, header: bool = True, quotes: bool = True) -> Iterator[DataRow]:
    """The rows of one file, by column name, or by position if it has no header.

    Args:
        file: .csv, .tsv, .jsonl (also .json and .ndjson) or .parquet. Text files may be compressed.
        header: the first line of a TSV file names its columns.
        quotes: quotes surround fields of a TSV file, as pandas and Excel write it; False for GLUE's
            files, in which a quote is a plain character.

    Raises:
        BadData: the file cannot be read, or is of another kind than its name says.
    """
    kind = kind_of(file)
    if kind == PARQUET:
        yield from parquet_rows(file)
        return
    text = content_of(file).decode("utf-8", "surrogateescape")
    if kind == JSONL:
        yield from jsonl_rows(file, text)
    elif kind == TSV and not quotes:
        yield from raw_rows(file, text, header=header)
    else:
        yield from quoted_rows(file, text, DELIMITERS[kind])
