"""Labelled texts: from GLUE's own layout, the user's CSV, TSV or JSONL, the hub, or built in.

A row that is broken is named by file and line; it stops the run unless broken rows are to be
skipped, and then they are counted and the first ones named.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import BUILT_IN, Columns, Task, own_task
from spd_train.data.rows import SUFFIXES, Row, read_rows

Note = Callable[[str], None]

_OWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_SKIPPED_NAMED = 3
_MEND = "mend the row"
_OPTIONS = "check --text-column and --pair-column"
_MOST_LABELS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row: a text or a pair, and its label: a class index, or a number for a regression."""

    text: str
    pair: str | None = None
    label: float | None = None


Splits = dict[str, list[Example]]


def read_split(
    task: Task,
    data_dir: Path | None,
    split: str,
    *,
    skip_broken: bool | None = None,
    note: Note = lambda _: None,
) -> Splits:
    """The examples of one split by file name; one file, or two for MNLI's dev and test.

    Args:
        task: says where the columns are and what the labels mean.
        data_dir: a folder, or one file of the user's own; None for the hub or a built-in task.
        split: ``train``, ``dev`` or ``test``; only the last may lack labels.
        skip_broken: leave broken rows out instead of stopping at the first; None where the user
            has no such choice, which is then not advised either.
        note: told how many rows were left out.

    Raises:
        BadData: a file, row, column or label is amiss, named with file and line.
        Unavailable: the hub's copy was asked for and cannot be had.
    """
    if data_dir is None:
        return _without_files(task, split)
    labelled = split != "test"
    found: Splits = {}
    for file in files_of(task, data_dir, split):
        rows = read_rows(file, header=not isinstance(task.columns.text, int))
        examples = _examples(task, rows, labelled=labelled, skip_broken=skip_broken, note=note)
        if not examples:
            raise BadData(f"{file} holds no rows", fix="check the file")
        found[file.stem] = examples
    return found


def own_task_from(
    data_dir: Path,
    *,
    text_column: str,
    pair_column: str | None,
    label_column: str,
    regression: bool,
    skip_broken: bool = False,
    name: str = "own",
) -> Task:
    """The task that the user's training file holds, its labels found in the label column.

    Raises:
        BadData: no training file, no such column, or far too many different labels.
    """
    columns = Columns(text=text_column, pair=pair_column, label=label_column)
    labels: set[str] = set()
    for file in _own_files(data_dir, "train"):
        for row in read_rows(file, header=True):
            if skip_broken and not row.fields:
                continue  # it is counted and named when examples are made of the rows
            _refuse_missing_columns(row, columns, fix=f"{_OPTIONS}, and --label-column")
            if row.fields[label_column].strip():  # without a label it is a broken row
                labels.add(row.fields[label_column])
    if len(labels) > _MOST_LABELS and not regression:
        raise BadData(
            f"column {label_column!r} holds too many different labels for a classification",
            got=f"{len(labels)} of them",
            fix="name another --label-column, or say --regression",
        )
    if len(labels) < 2:
        raise BadData(
            f"column {label_column!r} must hold at least two different labels",
            got=", ".join(sorted(labels)) or "none",
            fix="name another --label-column",
        )
    return own_task(
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        labels=() if regression else tuple(sorted(labels, key=_label_order)),
        name=name,
    )


def files_of(task: Task, data_dir: Path, split: str) -> list[Path]:
    """The files of a split: GLUE's names for a GLUE task, the user's own otherwise."""
    if not data_dir.exists():
        raise BadData("no such data folder or file", got=str(data_dir), fix="check --data-dir")
    if not task.files:
        return _own_files(data_dir, split)
    if split not in task.files:
        raise BadData("no such split", got=split, fix=f"use one of {', '.join(task.files)}")
    files = [data_dir / name for name in task.files[split]]
    for file in files:
        if not file.is_file():
            raise BadData(f"{file} is missing", fix=_hint_where(data_dir, file.name))
    return files


def has_split(task: Task, data_dir: Path | None, split: str) -> bool:
    """Whether the split is there to be read; GLUE and built-in tasks always have train and dev."""
    if data_dir is None or task.files:
        return True
    return data_dir.is_dir() and any(_own_candidates(data_dir, split))


def _examples(
    task: Task, rows: Iterator[Row], *, labelled: bool, skip_broken: bool | None, note: Note
) -> list[Example]:
    """Rows to examples; broken ones raise, or are skipped and told of."""
    found: list[Example] = []
    broken: list[str] = []
    mend = _MEND if skip_broken is None else f"{_MEND}, or use --skip-broken-rows"
    name = _name_columns(task)
    for row in rows:
        try:
            found.append(_example(task, row, labelled=labelled, mend=mend, name=name))
        except BadData as err:
            if not skip_broken:
                raise
            broken.append(str(err))
    if broken:
        note(f"skipped {len(broken)} broken rows, such as: {' | '.join(broken[:_SKIPPED_NAMED])}")
    return found


def examples_from_rows(task: Task, columns: Columns, rows: Iterable[Row]) -> list[Example]:
    """Unlabelled examples from rows whose texts stand in ``columns``.

    Raises:
        BadData: a row is broken; it is named.
    """
    placed = replace(task, columns=columns)
    name = _OPTIONS
    return [_example(placed, row, labelled=False, mend=_MEND, name=name) for row in rows]


def _name_columns(task: Task) -> str:
    """What to do about a column that is missing where no option names the columns."""
    if task.name == "unknown":
        return "name a --task: the model does not say its own, nor which columns it reads"
    columns = (task.columns.text, task.columns.pair, task.columns.label)
    read = ", ".join(str(column) for column in columns if column is not None)
    return f"name the file's columns as those of task {task.name}: {read}"


def _example(task: Task, row: Row, *, labelled: bool, mend: str, name: str) -> Example:
    """One example, or an error that names the row and says how to ``mend`` it or ``name`` it."""
    columns = task.columns
    needed = columns if labelled else Columns(text=columns.text, pair=columns.pair)
    _refuse_missing_columns(row, needed, mend=mend, fix=name)
    text = row.fields[columns.text]
    pair = None if columns.pair is None else row.fields[columns.pair]
    if not text.strip() or (pair is not None and not pair.strip()):
        raise BadData(f"{row.place}: empty text", fix=mend)
    label = None
    if labelled and columns.label is not None:
        label = _label(task, row, row.fields[columns.label])
    return Example(text=text, pair=pair, label=label)


def _label(task: Task, row: Row, spelled: str) -> float:
    """The class index, or the number of a regression."""
    if not task.is_regression:
        name = task.label_values.get(spelled, spelled)
        if name in task.labels:
            return task.labels.index(name)
        raise BadData(
            f"{row.place}: unknown label",
            got=repr(spelled[:80]),
            fix=f"use one of {', '.join(task.label_values or task.labels)}",
        )
    try:
        number = float(spelled)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadData(f"{row.place}: the label is no number", got=repr(spelled[:80]), fix="mend it")
    return number


def _refuse_missing_columns(row: Row, columns: Columns, *, mend: str = _MEND, fix: str) -> None:
    """The row must have every column that is needed."""
    wanted = [c for c in (columns.text, columns.pair, columns.label) if c is not None]
    missing = [c for c in wanted if c not in row.fields]
    if missing and not row.fields:
        raise BadData(
            f"{row.place}: another number of fields than the first line has",
            fix=mend,
        )
    if missing:
        raise BadData(
            f"{row.place}: no column {missing[0]!r}",
            got=f"columns {', '.join(map(str, row.fields))}",
            fix=fix,
        )


def _own_files(data_dir: Path, split: str) -> list[Path]:
    """The user's file for a split: the file given, or the one of that name in the folder."""
    if data_dir.is_file():
        return [data_dir]
    if file := next(_own_candidates(data_dir, split), None):
        return [file]
    names = " or ".join(f"{_OWN_NAMES[split][0]}{suffix}" for suffix in SUFFIXES)
    raise BadData(f"{data_dir} has no file for {split}", fix=f"add {names}")


def _own_candidates(data_dir: Path, split: str) -> Iterator[Path]:
    """Files in the folder that may hold the split, in order of preference."""
    names = [f"{stem}{suffix}" for stem in _OWN_NAMES.get(split, (split,)) for suffix in SUFFIXES]
    return (data_dir / name for name in names if (data_dir / name).is_file())


def _hint_where(data_dir: Path, name: str) -> str:
    """What to do about a missing file: the folder below that has one, where there is one."""
    below = sorted(p.parent.name for p in data_dir.glob(f"*/{name}"))
    if below:
        return f"give the task's own folder, one of: {', '.join(below)} below {data_dir}"
    return "give the folder that holds the task's files in GLUE's layout"


def _label_order(label: str) -> tuple[int, float, str]:
    """Numbers by value first, then words by letter, so that 10 comes after 9."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _without_files(task: Task, split: str) -> Splits:
    """A built-in task's examples, or the hub's."""
    if task.name in BUILT_IN:
        from spd_train.data.grammar import generate

        return {split: generate(task.name, split)}
    if task.hub is None:
        raise BadData(f"task {task.name!r} has no data of its own", fix="name it with --data-dir")
    from spd_train.data.hub import hub_split

    return hub_split(task, split)
