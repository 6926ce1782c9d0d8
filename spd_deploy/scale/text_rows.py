"""Rows of a file or of standard input, and the text or pair that each row holds."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from spd_deploy.domain.tasks import Columns, Task

if TYPE_CHECKING:
    from spd_train.data.examples import Example, OpenTokenizer
    from spd_train.data.rows import DataRow, Fault

STANDARD = Path("-")
_FIRST_BYTES = 1 << 16


@dataclass(slots=True, kw_only=True)
class RowReader:
    """Finds the text of each row; the first sound row says in which columns texts are.

    Attributes:
        task: says whether rows are pairs, and which columns it was trained on.
        text_column: the column of the text, where the user names it.
        pair_column: the column of the second text, where the user names it.
        open_tokenizer: gives the model's tokenizer, for which a text without a token is broken.
        columns: those that are read; None before the first sound row.
    """

    task: Task
    text_column: str | None = None
    pair_column: str | None = None
    open_tokenizer: "OpenTokenizer | None" = None
    columns: Columns | None = None
    _placed: Task | None = field(default=None, init=False)

    def read(self, row: "DataRow") -> "Example | Fault":
        """The row's text or pair, or why it has none.

        Raises:
            BadData: the header of the file lacks a column.
        """
        from spd_train.data.examples import example_of

        if row.fault is not None:
            return row.fault
        if twice := row.repeated or row.repeated_inside:
            return _occurs_twice(str(min(map(str, twice))))
        if self._placed is None:
            self.columns = self.columns or self._columns(row)
            self._placed = replace(self.task, columns=self.columns)
        return example_of(self._placed, row, labelled=False, open_tokenizer=self.open_tokenizer)

    def _columns(self, row: "DataRow") -> Columns:
        """The columns asked for, else the server's names if the file has them, else the task's."""
        paired = self.task.has_pair
        ours = Columns(text="text", pair="text_pair" if paired else None)
        known = ours if "text" in row.names else self.task.columns
        return Columns(
            text=self.text_column or known.text,
            pair=(self.pair_column or known.pair) if paired else None,
        )


def _occurs_twice(name: str) -> "Fault":
    """Why a row is broken whose output would lack one of two values."""
    from spd_train.data.rows import Fault

    return Fault(
        kind=f"the field {name!r} occurs twice", fix="give each field of an object its own name"
    )


def file_rows(task: Task, file: Path, stream: BinaryIO | None = None) -> Iterator["DataRow"]:
    """The rows of a file, read as they are asked for; GLUE's own files have no quoting.

    ``stream`` is read in place of a text file.
    """
    from spd_train.data.folders import in_glue_layout
    from spd_train.data.read_rows import read_rows

    return read_rows(file, quotes=not in_glue_layout(task, file), stream=stream)


def standard_rows(task: Task, name: Path, stream: BinaryIO) -> Iterator["DataRow"]:
    """The rows of standard input, as of a file of this ``name``."""
    from spd_train.data.folders import has_glue_columns
    from spd_train.data.read_rows import read_rows
    from spd_train.data.text_stream import Prefixed

    read = getattr(stream, "read1", stream.read)
    first = b""
    while b"\n" not in first and (more := read(_FIRST_BYTES)):
        first += more
    line = first.partition(b"\n")[0]
    names = line.decode("utf-8", "replace").rstrip("\r").split("\t")
    rest = cast("BinaryIO", BufferedReader(Prefixed(first, stream), _FIRST_BYTES))
    return read_rows(name, quotes=not has_glue_columns(task, name, names), stream=rest)
