"""The examples of one split: from GLUE's files, the user's own, the hub, or built in."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import BUILT_IN, Task
from spd_train.data.broken_rows import usable_rows
from spd_train.data.examples import (
    Example,
    Note,
    OpenTokenizer,
    Splits,
    example_of,
    no_usable_rows,
)
from spd_train.data.folders import files_of
from spd_train.data.foreign import refuse_foreign_file
from spd_train.data.glue_hub import hub_split
from spd_train.data.grammar import generate
from spd_train.data.read_rows import read_rows
from spd_train.data.rows import DataRow, Fault


def read_split(
    task: Task,
    data_dir: Path | None,
    split: str,
    *,
    skip_broken: bool | None = None,
    note: Note = lambda _: None,
    open_tokenizer: OpenTokenizer | None = None,
    group_column: str | None = None,
) -> Splits:
    """The examples of one split by part: one part, or two for MNLI's dev and test.

    Args:
        task: names the columns and the labels.
        data_dir: a folder, or one file of the user's own; None for the hub or a built-in task.
        split: ``train``, ``dev`` or ``test``; only ``test`` may lack labels.
        skip_broken: skip broken rows instead of stopping at the first. None if the user has no such
            option, so that no error recommends it.
        note: reports how many rows were skipped.
        open_tokenizer: gives the model's tokenizer; a text without a token for it is a broken row.
        group_column: the column of the files that rows are grouped by.

    Raises:
        BadData: a file, row, column or label is wrong; the error names file and line.
        Unavailable: the hub's data is wanted and cannot be fetched.
    """
    if data_dir is None:
        if group_column is not None:
            raise BadData("rows without files have no groups", fix="name the files with --data")
        return _without_files(task, split)
    return {
        part: _examples(
            task,
            files,
            labelled=split != "test",
            skip_broken=skip_broken,
            note=note,
            open_tokenizer=open_tokenizer,
            group_column=group_column,
        )
        for part, files in files_of(task, data_dir, split).items()
    }


def _examples(
    task: Task,
    files: Sequence[Path],
    *,
    labelled: bool,
    skip_broken: bool | None,
    note: Note,
    open_tokenizer: OpenTokenizer | None,
    group_column: str | None,
) -> list[Example]:
    """The examples of one file, or of its shards in order."""
    positional = isinstance(task.columns.text, int)
    rows = chain.from_iterable(
        read_rows(file, header=not positional, quotes=not task.files) for file in files
    )
    name = _name_columns(task)

    def pairs() -> Iterator[tuple[DataRow, Example | Fault]]:
        for i, row in enumerate(rows):
            if i == 0 and task.files:
                refuse_foreign_file(task, row)
            example = example_of(
                task,
                row,
                labelled=labelled,
                name=name,
                open_tokenizer=open_tokenizer,
                group_column=group_column,
            )
            yield row, example

    examples = [example for _, example in usable_rows(pairs(), skip_broken=skip_broken, note=note)]
    if not examples:
        raise no_usable_rows(files[0])
    return examples


def _name_columns(task: Task) -> str:
    """The remedy for a missing column if no option names the columns."""
    if task.name == "unknown":
        return "name a --task: the model does not say its own, nor which columns it reads"
    columns = (task.columns.text, task.columns.pair, task.columns.label)
    read = ", ".join(str(column) for column in columns if column is not None)
    return f"name the file's columns as those of task {task.name}: {read}"


def _without_files(task: Task, split: str) -> Splits:
    """The examples of a built-in task, or those of the hub."""
    if task.name in BUILT_IN:
        return {split: generate(task.name, split)}
    if task.hub is None:
        raise BadData(f"task {task.name!r} has no data of its own", fix="name it with --data")
    return hub_split(task, split)
