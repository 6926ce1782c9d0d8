"""A grid's TOML file, read strictly: every refusal names the field.

model = "MINILM_FOLDER"     # a folder, from where the command is typed, or a name on the hub
data = "GLUE"               # a folder with MRPC/, CoLA/, ...; left out: the hub
tasks = ["mrpc", "cola"]
patterns = ["2:4", "block:64x1@0.75"]   # with arms = [] as well: [], the dense teachers alone
arms = ["spd", "prune"]
seeds = [0, 1, 2]

[train]                     # options of spd train
epochs = 10
teacher_epochs = 3
[train.cola]                # what one task has otherwise
epochs = 20
"""

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spd_deploy.domain.errors import BadInput, BadPattern, BadSetting, UnknownTask
from spd_deploy.domain.patterns import SPELLINGS, Pattern, parse_pattern
from spd_deploy.domain.tasks import task_named
from spd_train.sweeping.grid import OPTIONS, Grid, Settings, Value
from spd_train.sweeping.jobs import ARMS

T = TypeVar("T")

_FIELDS = ("model", "data", "tasks", "patterns", "arms", "seeds", "train")
_WORDS: Mapping[type, str] = {
    str: "a string", int: "a whole number", float: "a number", list: "a list", dict: "a table"
}  # fmt: skip


def read_grid(file: Path) -> Grid:
    """The grid in ``file``.

    Raises:
        BadSetting: not there, not TOML, or a field that is missing, unknown or makes no sense.
    """
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise BadSetting(f"cannot read {file}", got=err.strerror, fix="check the path") from err
    except ValueError as err:  # broken UTF-8 too
        raise BadSetting(f"{file} is not TOML", got=err, fix="mend it") from err
    try:
        return grid_from(value)
    except BadInput as err:
        raise BadSetting(f"{file}: {err.what}", got=err.got, fix=err.fix) from err


def grid_from(value: Mapping[str, Any]) -> Grid:
    """The grid that a parsed file describes."""
    _refuse_unknown(value, _FIELDS, where="the grid")
    tasks = _axis(value, "tasks", _task)
    teachers_alone = value.get("patterns") == value.get("arms") == []
    return Grid(
        model=_text(value, "model"),
        data=Path(_text(value, "data")) if "data" in value else None,
        tasks=tasks,
        patterns=() if teachers_alone else _axis(value, "patterns", _pattern),
        arms=() if teachers_alone else _axis(value, "arms", _arm),
        seeds=_axis(value, "seeds", _seed),
        train=_settings(value, tasks),
    )


def _axis(value: Mapping[str, Any], name: str, parse: Callable[[Any], T]) -> tuple[T, ...]:
    """A list of different things, at least one."""
    found: list[T] = []
    for i, item in enumerate(_typed(_needed(value, name), list, name)):
        try:
            parsed = parse(item)
        except BadInput as err:
            raise BadSetting(f"{name}[{i}]: {err.what}", got=err.got, fix=err.fix) from err
        if parsed in found:
            raise BadSetting(f"{name}[{i}] is there twice", got=repr(item), fix="name it once")
        found.append(parsed)
    if not found:
        raise BadSetting(f"{name} is empty", fix="name at least one")
    return tuple(found)


def _task(item: Any) -> str:
    """A known task by its own name."""
    try:
        return task_named(_typed(item, str, "a task")).name
    except UnknownTask as err:
        fix = err.fix.partition(", or your own")[0]
        raise BadSetting(err.what, got=err.got, fix=fix) from err


def _pattern(item: Any) -> Pattern:
    """A pattern, with its sparsity after an ``@``."""
    text, at, sparsity = _typed(item, str, "a pattern").partition("@")
    try:
        return parse_pattern(text, float(sparsity) if at else None)
    except (BadPattern, ValueError) as err:
        what = err.what if isinstance(err, BadPattern) else "the sparsity is not a number"
        fix = f"use {SPELLINGS}, with @ and a sparsity such as unstructured@0.9"
        raise BadSetting(what, got=repr(item), fix=fix) from err


def _arm(item: Any) -> str:
    """One of the recipes."""
    if item not in ARMS:
        raise BadSetting("unknown arm", got=repr(item), fix=f"use one of {', '.join(ARMS)}")
    return str(item)


def _seed(item: Any) -> int:
    """A whole number from 0."""
    if _typed(item, int, "a seed") < 0:
        raise BadSetting("a seed must be 0 or more", got=item, fix="use 0, 1, 2")
    return int(item)


def _settings(value: Mapping[str, Any], tasks: tuple[str, ...]) -> Settings:
    """The table of options, with tables for single tasks in it."""
    common: dict[str, Value] = {}
    by_task: dict[str, Mapping[str, Value]] = {}
    for key, item in _typed(value.get("train", {}), dict, "train").items():
        if not isinstance(item, dict):
            common[key] = _option(key, item, where="train")
            continue
        task = _task_of_grid(key, tasks)
        if task in by_task:
            raise BadSetting(f"train.{key} is there twice", fix=f"keep one table for {task}")
        by_task[task] = {k: _option(k, v, where=f"train.{key}") for k, v in item.items()}
    return Settings(common=common, by_task=by_task)


def _task_of_grid(key: str, tasks: tuple[str, ...]) -> str:
    """A task that the grid has."""
    try:
        task = task_named(key).name
    except UnknownTask:
        task = ""
    if task not in tasks:
        fix = f"use one of {', '.join(tasks)}, or add it to tasks"
        raise BadSetting(f"train.{key} is no task of the grid", fix=fix)
    return task


def _option(key: str, item: Any, *, where: str) -> Value:
    """One option of ``spd train``."""
    _refuse_unknown({key: item}, tuple(OPTIONS), where=where)
    kind = OPTIONS[key]
    found: Value = _typed(item, kind, f"{where}.{key}")
    if kind is not str and not 0 < float(found) < math.inf:
        raise BadSetting(f"{where}.{key} must be a number above 0", got=item, fix="correct it")
    return found


def _text(value: Mapping[str, Any], name: str) -> str:
    """A string that is not empty."""
    found = str(_typed(_needed(value, name), str, name))
    if not found:
        raise BadSetting(f"{name} is empty", fix="name a folder")
    return found


def _needed(value: Mapping[str, Any], name: str) -> Any:
    """A field that must be there."""
    if name not in value:
        raise BadSetting(f"{name} is missing", fix=f"add {name} to the grid")
    return value[name]


def _typed(item: Any, kind: type, name: str) -> Any:
    """The item, if it is of its kind; a whole number is a number too, true and false are none."""
    fits = isinstance(item, (int, float) if kind is float else kind)
    if not fits or (isinstance(item, bool) and kind is not bool):
        raise BadSetting(f"{name} must be {_WORDS[kind]}", got=repr(item), fix="correct it")
    return item


def _refuse_unknown(value: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> None:
    """No field is passed over."""
    for name in value:
        if name not in known:
            raise BadSetting(
                f"{where} has an unknown field", got=name, fix=f"use {', '.join(known)}"
            )
