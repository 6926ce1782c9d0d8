"""Answers as Parquet, which has its index at the end and so cannot be continued after a kill.

Chunks are therefore appended as Arrow's stream format, each a stream of its own, and become one
Parquet file when all rows are answered. Columns of a Parquet input are passed on as Arrow has them:
no type changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import BadData, first_line
from spd_deploy.domain.extras import require_extras
from spd_deploy.scale.answer_columns import AnswerColumns

if TYPE_CHECKING:
    import pyarrow

    from spd_train.data.rows import DataRow

# Of one row group.
_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 1 << 26
_BATCH_ROWS = 4096
_MAX_SHOWN = 80
# What Arrow raises for values of which it cannot make a column; its own errors are among these.
_UNFIT = (ValueError, TypeError, OverflowError, NotImplementedError, KeyError)


def row_count(file: Path) -> int | None:
    """How many rows a Parquet file has; None where it cannot be read, which its reader says."""
    require_extras("reading Parquet", "parquet", otherwise="write .csv or .jsonl instead")
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as opened:
            return int(opened.metadata.num_rows)
    except (pyarrow.ArrowException, OSError):
        return None


class ParquetRows:
    """The rows of a Parquet file as Arrow has them, passed through in the order of the file."""

    def __init__(self, file: Path) -> None:
        """Of a file that is opened with the first rows, which others have read before."""
        self._batches = _batches_of(file)
        self._ahead: pyarrow.Table | None = None
        self._before = 0  # rows of the file in front of those ahead

    def take(self, rows: Sequence["DataRow"]) -> "pyarrow.Table":
        """Some rows, which come after all that were taken before."""
        import pyarrow

        lines = [row.line for row in rows]
        tables = [] if self._ahead is None else [self._ahead]
        end = self._before + sum(table.num_rows for table in tables)
        while end < lines[-1]:
            tables.append(pyarrow.Table.from_batches([next(self._batches)]))
            end += tables[-1].num_rows
            if end < lines[0] - 1:
                self._before, tables = end, []
        whole = pyarrow.concat_tables(tables)
        found = whole.take([line - 1 - self._before for line in lines])
        self._ahead = whole.slice(lines[-1] - self._before)
        self._before = lines[-1]
        return found


def _batches_of(file: Path) -> "Iterator[pyarrow.RecordBatch]":
    """The file in pieces, opened when the first one is asked for."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        yield from opened.iter_batches(_BATCH_ROWS)


def arrow_of(
    columns: AnswerColumns,
    rows: Sequence["DataRow"],
    answers: Sequence[Mapping[str, Any]],
    *,
    own: "pyarrow.Table | None",
    schema: "pyarrow.Schema | None",
) -> "tuple[bytes, pyarrow.Schema]":
    """One chunk as an Arrow stream, and its schema.

    Args:
        columns: what fields are called.
        rows: of the chunk.
        answers: their flat answers.
        own: the rows as Arrow has them, where the input is Parquet.
        schema: that of the first chunk; None for the first.

    Raises:
        BadData: a row whose value does not have the type of its column.
    """
    import pyarrow

    if own is None:
        own = pyarrow.table({name: _column(name, rows, schema) for name in columns.of_rows})
    for name, ours in columns.names.items():
        values = [answer[name] for answer in answers]
        own = own.append_column(ours, pyarrow.array(values, type=_type_of(name)))
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, own.schema) as stream:
        stream.write_table(own)
    return bytes(sink.getvalue()), own.schema


def schema_of(written: Path) -> "pyarrow.Schema":
    """The schema of the first chunk."""
    import pyarrow

    with pyarrow.OSFile(str(written)) as source:
        return pyarrow.ipc.open_stream(source).schema


def write_parquet(written: Path, draft: Path) -> None:
    """Turn the chunks that were appended into one Parquet file."""
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(draft, schema_of(written)) as writer:
        for table in _grouped(_tables(written)):
            writer.write_table(table)


def _tables(written: Path) -> Iterator["pyarrow.Table"]:
    """The chunks in order."""
    import pyarrow

    with pyarrow.OSFile(str(written)) as source:
        while source.tell() < source.size():
            yield pyarrow.ipc.open_stream(source).read_all()


def _grouped(tables: Iterator["pyarrow.Table"]) -> Iterator["pyarrow.Table"]:
    """Chunks joined to row groups of a usual size."""
    import pyarrow

    group: list[pyarrow.Table] = []
    for table in tables:
        group.append(table)
        rows = sum(one.num_rows for one in group)
        if rows >= _GROUP_ROWS or sum(one.nbytes for one in group) >= _GROUP_BYTES:
            yield pyarrow.concat_tables(group)
            group = []
    if group:
        yield pyarrow.concat_tables(group)


def _type_of(name: str) -> "pyarrow.DataType":
    """The type of a field of the answer."""
    import pyarrow

    match name:
        case "label" | "labels":
            return pyarrow.string()
        case "truncated" | "abstained":
            return pyarrow.bool_()
        case "windows":
            return pyarrow.int64()
        case _:  # a score
            return pyarrow.float64()


def _column(
    name: str, rows: Sequence["DataRow"], schema: "pyarrow.Schema | None"
) -> "pyarrow.Array":
    """One column of rows of a text file; the first chunk finds its type.

    Raises:
        BadData: a value has another type than those before.
    """
    import pyarrow

    values = [row.fields.get(name) for row in rows]
    wanted = None if schema is None else schema.field(name).type
    try:
        found = _array(values, wanted)
    except _UNFIT as err:
        row = rows[_first_unfit(values, wanted)]
        raise BadData(
            f"{row.place}: the field {name!r} has another type than in the rows before",
            got=first_line(err),
            fix="give the field one type, or write the answers as .jsonl",
        ) from err
    if _lacks_fields(found.type):
        raise BadData(
            f"{rows[0].file}: the field {name!r} holds objects without a field, which Parquet "
            "does not have",
            fix="write the answers as .jsonl",
        )
    return found.cast(pyarrow.string()) if pyarrow.types.is_null(found.type) else found


def _array(values: Sequence[Any], wanted: "pyarrow.DataType | None") -> "pyarrow.Array":
    """The values as Arrow has them.

    Raises:
        ValueError: Arrow would keep less of a value than it says, such as 3 of 3.5.
    """
    import pyarrow

    found = pyarrow.array(values, type=wanted)
    for given, kept in zip(values, found.to_pylist(), strict=True):
        if not _is_kept(given, kept):
            raise ValueError(f"{given!r}"[:_MAX_SHOWN])
    return found


def _is_kept(given: Any, kept: Any) -> bool:
    """Whether a value is whole; an object may have got fields of others, which are None."""
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(
            name in kept and _is_kept(value, kept[name]) for name, value in given.items()
        )
    if isinstance(given, list):
        return len(given) == len(kept) and all(map(_is_kept, given, kept))
    return bool(given == kept)


def _lacks_fields(type_: "pyarrow.DataType") -> bool:
    """Whether a type is, or holds, an object without fields."""
    import pyarrow

    if pyarrow.types.is_struct(type_) and type_.num_fields == 0:
        return True
    return any(_lacks_fields(type_.field(i).type) for i in range(type_.num_fields))


def _first_unfit(values: Sequence[Any], wanted: "pyarrow.DataType | None") -> int:
    """Index of the first value that cannot stand in one column with those before it."""
    low, high = 1, len(values)  # the first `low - 1` values fit, the first `high` do not
    while low < high:
        middle = (low + high) // 2
        try:
            _array(values[:middle], wanted)
            low = middle + 1
        except _UNFIT:
            high = middle
    return high - 1
