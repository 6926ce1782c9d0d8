"""Rows of Parquet files, read with pyarrow."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spd_deploy.domain.errors import BadData, first_line
from spd_deploy.domain.extras import require_extras
from spd_train.data.formats import refuse_no_parquet
from spd_train.data.rows import DataRow, Fault

# Read at once; a row group may be larger than memory.
_BATCH_ROWS = 4096


def parquet_rows(file: Path) -> Iterator[DataRow]:
    """The rows of a Parquet file; missing values and NaN are None.

    Raises:
        Unavailable: pyarrow is not installed.
        BadData: the file is damaged or no Parquet file.
    """
    require_extras("reading Parquet", "parquet", otherwise="write .csv or .jsonl instead")
    import pyarrow
    from pyarrow.parquet import ParquetFile

    refuse_no_parquet(file)
    try:
        with ParquetFile(file) as opened:
            header = tuple(opened.schema_arrow.names)
            number = 0
            for batch in opened.iter_batches(_BATCH_ROWS):
                columns = [_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield _row(file, number, header, values)
    except (pyarrow.ArrowException, OSError) as err:
        raise BadData(
            f"{file} is damaged", got=first_line(err), fix="write or copy the file again"
        ) from err


def _row(file: Path, number: int, header: tuple[str, ...], values: tuple[Any, ...]) -> DataRow:
    """One row; a text that is not UTF-8 makes it a broken row."""
    if any(isinstance(value, UnicodeDecodeError) for value in values):
        fault = Fault(kind="not UTF-8", fix="write the file's texts as UTF-8")
        return DataRow(file=file, line=number, header=header, fault=fault)
    return DataRow(
        file=file, line=number, header=header, fields=dict(zip(header, values, strict=True))
    )


def _values(column: Any) -> list[Any]:
    """The values of a column; an error in place of each text that is not UTF-8."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value(scalar) for scalar in column]
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values]


def _value(scalar: Any) -> Any:
    """One value, or the error of decoding it."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as err:
        return err
