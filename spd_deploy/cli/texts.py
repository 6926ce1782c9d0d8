"""Texts without labels, from the command line, a file or standard input."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.tasks import Columns, Task

if TYPE_CHECKING:
    from spd_train.data.examples import Example, OpenTokenizer
    from spd_train.data.rows import DataRow

STANDARD = Path("-")


def from_arguments(task: Task, texts: Sequence[str]) -> list["Example"]:
    """Examples from the command line, two texts each for a task of pairs.

    Raises:
        BadData: a text is empty, or one of a pair is missing.
    """
    from spd_train.data.examples import Example

    for text in texts:
        if not text.strip():
            raise BadData("a text is empty", fix="give some text")
    if not task.has_pair:
        return [Example(text=text) for text in texts]
    if len(texts) % 2:
        raise BadData(
            f"{task.name} compares two texts", got=f"{len(texts)} texts", fix="give them in pairs"
        )
    return [Example(text=a, pair=b) for a, b in zip(texts[::2], texts[1::2], strict=True)]


def rows_from_file(
    task: Task,
    file: Path,
    text_column: str | None,
    pair_column: str | None,
    *,
    skip_broken: bool | None,
    note: Callable[[str], None] = lambda _: None,
    kind: str = "jsonl",
    open_tokenizer: "OpenTokenizer | None" = None,
) -> list[tuple["DataRow", "Example"]]:
    """The rows of a file with the example that each holds; every row is read before any is used.

    Args:
        task: says whether rows are pairs, and which columns it was trained on.
        file: of a kind that ``spd train`` reads; :data:`STANDARD` for standard input.
        text_column: the column of the text, where the user names it.
        pair_column: the column of the second text, where the user names it.
        skip_broken: leave broken rows out; None where the user has no such choice.
        note: reports how many rows were left out, and why.
        kind: what standard input is; errors call it ``stdin.KIND``.
        open_tokenizer: gives the model's tokenizer; a text without a token for it is a broken row.

    Raises:
        BadData: no such file, a column is missing, or a row is broken and not to be left out.
    """
    from spd_train.data.examples import example_of, no_usable_rows, usable_rows

    if file == STANDARD:
        file = Path(f"stdin.{kind}")
        rows = _read_standard(task, file)
    else:
        rows = _read(task, file)
    whole = next((row for row in rows if row.fault is None), None)
    if whole is None and (skip_broken or not rows):
        raise no_usable_rows(file)
    placed = task if whole is None else replace(
        task, columns=_columns(task, whole, text_column, pair_column)
    )  # fmt: skip
    read = partial(example_of, placed, labelled=False, open_tokenizer=open_tokenizer)
    made = ((row, read(row)) for row in rows)
    found = usable_rows(made, skip_broken=skip_broken, note=note)
    if not found:
        raise no_usable_rows(file)
    return found


def _read(task: Task, file: Path) -> list["DataRow"]:
    """The rows of a file; GLUE's own are written without quoting."""
    from spd_train.data.folders import in_glue_layout
    from spd_train.data.read_rows import read_rows

    return list(read_rows(file, quotes=not in_glue_layout(task, file)))


def _read_standard(task: Task, name: Path) -> list["DataRow"]:
    """The rows of standard input, which is read to its end, as of a file of this ``name``.

    Raises:
        BadData: as of a file.
    """
    with scratch_folder("input") as scratch:
        file = scratch / name
        file.write_bytes(sys.stdin.buffer.read())
        try:
            return [replace(row, file=name) for row in _read(task, file)]
        except BadData as err:
            what = err.what.replace(f"{scratch}/", "")
            raise BadData(what, got=err.got, fix=err.fix) from err


def _columns(
    task: Task, row: "DataRow", text_column: str | None, pair_column: str | None
) -> Columns:
    """The columns asked for, else the server's names where the file has them, else the task's."""
    ours = Columns(text="text", pair="text_pair" if task.has_pair else None)
    known = ours if "text" in row.names else task.columns
    return Columns(
        text=text_column or known.text,
        pair=(pair_column or known.pair) if task.has_pair else None,
    )
