"""Which file holds which split, in GLUE's layout and in the user's own folders."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import TASKS, Task
from spd_train.data.formats import LIKE, SUFFIXES, stem_of
from spd_train.data.read_rows import read_rows
from spd_train.data.rows import Name

_OWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_MAX_NAMED = 8
# The end of a shard's name, as the Hugging Face hub writes it: train-00000-of-00002.parquet.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


def files_of(task: Task, data_dir: Path, split: str) -> dict[str, list[Path]]:
    """The files of a split by part: GLUE's for a GLUE task, the user's own otherwise.

    A part is one file, or all shards of one.

    Raises:
        BadData: there is no such split, folder or file, or several files for the split.
    """
    _refuse_absent(data_dir)
    if not task.files:
        files = own_files(data_dir, split)
        return {_SHARD.sub("", stem_of(files[0])): files}
    if split not in task.files:
        raise BadData("no such split", got=split, fix=f"use one of {', '.join(task.files)}")
    if data_dir.is_file():
        raise BadData(
            f"task {task.name} is read from a folder with its files in GLUE's layout",
            got=f"the file {data_dir}",
            fix=f"name its folder; a file of your own: leave --task {task.name} out and name "
            "--text-column and --label-column",
        )
    files = [data_dir / name for name in task.files[split]]
    for file in files:
        if not file.is_file():
            raise BadData(f"{file} is missing", fix=_hint_where(data_dir, file.name))
    return {stem_of(file): [file] for file in files}


def own_files(data_dir: Path, split: str) -> list[Path]:
    """The user's file for a split: ``data_dir`` itself, or the one of that name in it.

    A file may be cut into shards, which are read as one.

    Raises:
        BadData: there is none, there are several, or a shard is missing.
    """
    _refuse_absent(data_dir)
    if data_dir.is_file():
        return [data_dir]
    files = _candidates(data_dir, split)
    if len({_SHARD.sub("-of-", file.name) for file in files}) > 1:
        more = ", ..." if len(files) > _MAX_NAMED else ""
        raise BadData(
            f"{data_dir} has {len(files)} files for {split}",
            got=", ".join(file.name for file in files[:_MAX_NAMED]) + more,
            fix="keep one of them, or name a file with --data",
        )
    if files:
        _refuse_lacking_shards(files)
        return files
    below = next(
        (p for p in sorted(data_dir.iterdir()) if p.is_dir() and _candidates(p, split)), None
    )
    there = sorted(p.name for p in data_dir.iterdir() if not p.name.startswith("."))
    more = ", ..." if len(there) > _MAX_NAMED else ""
    raise BadData(
        f"{data_dir} has no file for {split}",
        got=(", ".join(there[:_MAX_NAMED]) or "an empty folder") + more,
        fix=f"name the file itself, or add {_OWN_NAMES.get(split, (split,))[0]}.csv (or .tsv, "
        ".jsonl, .parquet)"
        if below is None
        else f"did you mean {below}?",
    )


def has_split(task: Task, data_dir: Path | None, split: str) -> bool:
    """Whether there is a file for the split. GLUE and built-in tasks always have train and dev."""
    if data_dir is None or task.files:
        return True
    return data_dir.is_dir() and any(_candidates(data_dir, split))


def own_name(data_dir: Path) -> str:
    """The name of the task of the user's own data: that of its file or folder.

    A file named ``train`` gives the name of its folder. A name that a known task has gets ``own-``
    before it.
    """
    path = data_dir.resolve()
    if path.is_file():
        name = _SHARD.sub("", stem_of(path))
        split = any(name.lower() in names for names in _OWN_NAMES.values())
        name = path.parent.name if split else name
    else:
        name = path.name
    key = re.sub("[-_]", "", name.lower())
    return f"own-{name}".rstrip("-") if key in TASKS or key in ("", "unknown") else name


def in_glue_layout(task: Task, file: Path) -> bool:
    """Whether a TSV file has the columns of a GLUE task, and so is written without quoting."""
    if not (task.files and file.name.lower().endswith(".tsv")):
        return False
    first = next(read_rows(file, quotes=False), None)
    return first is not None and has_glue_columns(task, file, first.names)


def has_glue_columns(task: Task, file: Path, names: Sequence[Name]) -> bool:
    """Whether a file whose header has these names is a TSV file in the layout of a GLUE task."""
    columns = {task.columns.text, task.columns.pair} - {None}
    return bool(task.files) and file.name.lower().endswith(".tsv") and columns <= set(names)


def _candidates(data_dir: Path, split: str) -> list[Path]:
    """The files in the folder that may hold the split, or a shard of it, by name."""
    names = {f"{stem}{s}" for stem in _OWN_NAMES.get(split, (split,)) for s in SUFFIXES}
    there = (p for p in data_dir.iterdir() if _SHARD.sub("", p.name) in names and p.is_file())
    return sorted(there)


def _refuse_lacking_shards(files: Sequence[Path]) -> None:
    """Refuse shards of which one is missing: the split would be smaller without a word."""
    numbers = [match.groups() for file in files if (match := _SHARD.search(file.name))]
    if not numbers:
        return
    count = int(numbers[0][1])
    lacking = set(range(count)) - {int(number) for number, of in numbers if int(of) == count}
    if lacking or len(files) != count:
        raise BadData(
            f"the shards of {files[0]} are not whole",
            got=f"{len(files)} of {count}"
            + (f", without number {min(lacking):05}" if lacking else ""),
            fix="copy all shards into the folder, or name one file with --data",
        )


def _refuse_absent(data_dir: Path) -> None:
    """Refuse a path that does not exist; the error names a similar one."""
    if data_dir.exists():
        return
    siblings = [p.name for p in data_dir.parent.iterdir()] if data_dir.parent.is_dir() else []
    close = get_close_matches(data_dir.name, siblings, n=1, cutoff=LIKE)
    fix = f"did you mean {data_dir.parent / close[0]}?" if close else "check --data"
    raise BadData("no such data folder or file", got=str(data_dir), fix=fix)


def _hint_where(data_dir: Path, name: str) -> str:
    """The remedy for a missing file: the subfolder that has one, if there is one."""
    below = sorted(p.parent.name for p in data_dir.glob(f"*/{name}"))
    if below:
        return f"give the task's own folder, one of: {', '.join(below)} below {data_dir}"
    return "give the folder that holds the task's files in GLUE's layout"
