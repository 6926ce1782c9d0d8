"""Read a CSV, TSV, JSONL or Parquet file row by row; it may be larger than memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spd_train.data.delimited import DELIMITERS, quoted_rows, raw_rows
from spd_train.data.formats import JSONL, PARQUET, TSV, kind_of
from spd_train.data.jsonl import jsonl_rows
from spd_train.data.parquet import parquet_rows
from spd_train.data.rows import DataRow
from spd_train.data.text_stream import lines_of


def read_rows(
    file: Path, *, header: bool = True, quotes: bool = True, stream: BinaryIO | None = None
) -> Iterator[DataRow]:
    """The rows of one file, by column name, or by position if it has no header.

    Args:
        file: .csv, .tsv, .jsonl (also .json and .ndjson) or .parquet. Text files may be compressed.
        header: the first line of a TSV file names its columns.
        quotes: quotes surround fields of a TSV file, as pandas and Excel write it; False for GLUE's
            files, in which a quote is a plain character.
        stream: of a text file: what is read in its place, such as standard input.

    Raises:
        BadData: the file cannot be read, or is of another kind than its name says.
    """
    kind = kind_of(file)
    if kind == PARQUET:
        yield from parquet_rows(file)
    elif kind == JSONL:
        yield from jsonl_rows(file, lines_of(file, newline="\n", stream=stream))
    elif kind == TSV and not quotes:
        yield from raw_rows(file, lines_of(file, newline="\n", stream=stream), header=header)
    else:
        lines = lines_of(file, newline="", stream=stream)
        yield from quoted_rows(file, lines, DELIMITERS[kind])
