"""Texts without labels, from the command line, a file or standard input."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task
from spd_deploy.scale.text_rows import STANDARD as STANDARD
from spd_deploy.scale.text_rows import RowReader, file_rows, standard_rows

if TYPE_CHECKING:
    from spd_train.data.examples import Example, OpenTokenizer
    from spd_train.data.rows import DataRow


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
    from spd_train.data.broken_rows import usable_rows
    from spd_train.data.examples import no_usable_rows

    if file == STANDARD:
        file = Path(f"stdin.{kind}")
        rows = standard_rows(task, file, sys.stdin.buffer)
    else:
        rows = file_rows(task, file)
    reader = RowReader(
        task=task, text_column=text_column, pair_column=pair_column, open_tokenizer=open_tokenizer
    )
    made = ((row, reader.read(row)) for row in rows)
    found = usable_rows(made, skip_broken=skip_broken, note=note)
    if not found:
        raise no_usable_rows(file)
    return found
