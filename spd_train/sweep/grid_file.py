"""A grid's TOML file, read strictly: every refusal names the field.

model = "MINILM_FOLDER"     # a folder, from where the command is typed, or a name on the hub
data = "GLUE"               # a folder with MRPC/, CoLA/, ...; left out: the hub
tasks = ["mrpc", "cola"]
patterns = ["2:4", "block:64x1@0.75"]   # with recipes = [] as well: [], the dense teachers alone
recipes = ["spd", "prune"]
seeds = [0, 1, 2]

[train]                     # options of spd train
epochs = 10
teacher_epochs = 3
[train.cola]                # options of one task
epochs = 20
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadInput, BadPattern, BadSetting, UnknownTask
from spd_deploy.domain.files import read_toml
from spd_deploy.domain.patterns import PATTERN_SYNTAX, Pattern, parse_pattern
from spd_deploy.domain.tasks import task_named
from spd_train.recipes import RECIPES
from spd_train.sweep.grid import Grid, TrainOptions, TrainTable

Item = TypeVar("Item")
Parsed = TypeVar("Parsed")

_FIX = "correct it"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridFile:
    """The fields of a grid file, with checked types and values that are not checked yet.

    Attributes:
        train: common options, and a table for each task that has others.
    """

    model: str
    tasks: tuple[str, ...]
    patterns: tuple[str, ...]
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    data: str | None = None
    train: Mapping[str, Any] = field(default_factory=dict)


def read_grid(file: Path) -> Grid:
    """The grid in ``file``.

    Raises:
        BadSetting: the file is missing or not TOML, or a field is missing, unknown or wrong.
    """
    value = read_toml(file, error=BadSetting, fix="check the path and the file")
    try:
        return grid_from(value)
    except BadInput as err:
        raise BadSetting(f"{file}: {err.what}", got=err.got, fix=err.fix) from err


def grid_from(value: Mapping[str, Any]) -> Grid:
    """The grid of a parsed file."""
    file = value_of(GridFile, value, what="the grid", error=BadSetting, fix=_FIX)
    for name in ("model", "data"):
        if getattr(file, name) == "":
            raise BadSetting(f"{name} is empty", fix="name a folder")
    tasks = _axis("tasks", file.tasks, _task)
    teachers_alone = not file.patterns and not file.recipes
    return Grid(
        model=file.model,
        data=None if file.data is None else Path(file.data),
        tasks=tasks,
        patterns=() if teachers_alone else _axis("patterns", file.patterns, _pattern),
        recipes=() if teachers_alone else _axis("recipes", file.recipes, _recipe),
        seeds=_axis("seeds", file.seeds, _seed),
        train=_settings(file.train, tasks),
    )


def _axis(name: str, items: Sequence[Item], parse: Callable[[Item], Parsed]) -> tuple[Parsed, ...]:
    """Parse a list that must hold at least one item, and none twice."""
    axis: list[Parsed] = []
    for i, item in enumerate(items):
        try:
            parsed = parse(item)
        except BadInput as err:
            raise BadSetting(f"{name}[{i}]: {err.what}", got=err.got, fix=err.fix) from err
        if parsed in axis:
            raise BadSetting(f"{name}[{i}] occurs twice", got=repr(item), fix="remove one of them")
        axis.append(parsed)
    if not axis:
        raise BadSetting(f"{name} is empty", fix="name at least one")
    return tuple(axis)


def _task(name: str) -> str:
    """The name of a known task."""
    try:
        return task_named(name).name
    except UnknownTask as err:
        fix = err.fix.partition(", or your own")[0]
        raise BadSetting(err.what, got=err.got, fix=fix) from err


def _pattern(item: str) -> Pattern:
    """A pattern, with its sparsity after an ``@``."""
    text, at, sparsity = item.partition("@")
    try:
        return parse_pattern(text, float(sparsity) if at else None)
    except (BadPattern, ValueError) as err:
        what = err.what if isinstance(err, BadPattern) else "the sparsity is not a number"
        fix = f"use {PATTERN_SYNTAX}, with @ and a sparsity such as unstructured@0.9"
        raise BadSetting(what, got=repr(item), fix=fix) from err


def _recipe(name: str) -> str:
    """The name of a recipe of ``spd train``."""
    if name not in RECIPES:
        raise BadSetting("unknown recipe", got=repr(name), fix=f"use one of {', '.join(RECIPES)}")
    return name


def _seed(seed: int) -> int:
    """A seed, which must be 0 or more."""
    if seed < 0:
        raise BadSetting("a seed must be 0 or more", got=seed, fix="use 0, 1, 2")
    return seed


def _settings(train: Mapping[str, Any], tasks: tuple[str, ...]) -> TrainTable:
    """The options in the ``train`` table, common ones and those of single tasks."""
    common = {name: value for name, value in train.items() if not isinstance(value, dict)}
    by_task: dict[str, TrainOptions] = {}
    for name in (name for name in train if name not in common):
        task = _task_of_grid(name, tasks)
        if task in by_task:
            raise BadSetting(f"train.{name} occurs twice", fix=f"keep one table for {task}")
        by_task[task] = _options(train[name], what=f"train.{name}")
    return TrainTable(common=_options(common, what="train"), by_task=by_task)


def _task_of_grid(name: str, tasks: tuple[str, ...]) -> str:
    """A task that is in the grid."""
    try:
        task = task_named(name).name
    except UnknownTask:
        task = ""
    if task not in tasks:
        fix = f"use one of {', '.join(tasks)}, or add it to tasks"
        raise BadSetting(f"train.{name} is not a task of the grid", fix=fix)
    return task


def _options(table: Mapping[str, Any], *, what: str) -> TrainOptions:
    """The options of one table, with checked values."""
    options = value_of(TrainOptions, table, what=what, error=BadSetting, fix=_FIX)
    for name, value in options.given().items():
        if name == "window_stride" and value == 0:  # windows may share nothing
            continue
        if not isinstance(value, str) and not 0 < value < math.inf:
            raise BadSetting(f"{what}.{name} must be a number above 0", got=value, fix=_FIX)
    return options
