"""Grids: what a file says, what is refused and how, and where each run goes."""

import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.patterns import NM, Block, Unstructured
from spd_deploy.domain.tasks import TASKS
from spd_train.recipes import RECIPES
from spd_train.sweep.command import train_command
from spd_train.sweep.grid import Grid, TrainTable, data_folder
from spd_train.sweep.grid_file import grid_from, read_grid
from spd_train.sweep.jobs import StudentJob, TeacherJob, pattern_text, slug

GRID = """
model = "MODEL"
data = "GLUE"
tasks = ["MRPC", "cola"]
patterns = ["2:4", "block:64x1@0.75", "unstructured@0.9"]
recipes = ["spd", "prune"]
seeds = [0, 1, 2]
[train]
epochs = 10
teacher_epochs = 3
batch_size = 16
[train.CoLA]
epochs = 20
teacher_learning_rate = 3e-5
"""


def small(**changes: Any) -> dict[str, Any]:
    """A grid's fields, some of them changed."""
    value = {
        "model": "m", "tasks": ["mrpc"], "patterns": ["2:4"], "recipes": ["spd"], "seeds": [0],
    }  # fmt: skip
    return {**value, **changes}


@pytest.fixture
def grid() -> Grid:
    """The grid above."""
    return grid_from(tomllib.loads(GRID))


def test_a_grid_is_the_product_of_its_axes(grid: Grid) -> None:
    """Every combination is a cell once, and every task and seed has one teacher."""
    cells = grid.students()

    assert len(cells) == len(set(cells)) == 2 * 3 * 2 * 3
    assert set(grid.teachers()) == {cell.teacher for cell in cells}
    assert len(grid.jobs()) == 36 + 6
    assert {cell.pattern for cell in cells} == {
        NM(n=2, m=4), Block(rows=64, columns=1, sparsity=0.75), Unstructured(sparsity=0.9)
    }  # fmt: skip


def test_the_first_seed_comes_first(grid: Grid) -> None:
    """All cells of a seed stand before those of the next, so a table comes early."""
    seeds = [cell.seed for cell in grid.students()]

    assert seeds == sorted(seeds)


def test_a_tasks_own_table_wins(grid: Grid) -> None:
    """A task's options replace the common ones, and the others stay."""
    cola = StudentJob(task="cola", pattern=NM(n=2, m=4), recipe="spd", seed=0)

    assert grid.options(cola) == {"epochs": 20, "batch_size": 16}
    assert grid.options(replace(cola, task="mrpc")) == {"epochs": 10, "batch_size": 16}


def test_teachers_and_students_have_options_of_their_own(grid: Grid) -> None:
    """Neither gets what means nothing to it, so other student epochs leave teachers as they are."""
    teacher = TeacherJob(task="cola", seed=0)
    expected = {"teacher_epochs": 3, "batch_size": 16, "teacher_learning_rate": 3e-5}

    assert grid.options(teacher) == expected
    assert replace(grid, train=TrainTable()).options(teacher) == {}
    longer = replace(grid.train, by_task={"cola": replace(grid.train.by_task["cola"], epochs=99)})
    assert replace(grid, train=longer).options(teacher) == expected


@given(
    tasks=st.sets(st.sampled_from(sorted(TASKS)), min_size=1),
    recipes=st.sets(st.sampled_from(sorted(RECIPES)), min_size=1),
    sparsities=st.sets(st.integers(1, 99), min_size=1, max_size=4),
    seeds=st.sets(st.integers(0, 99), min_size=1, max_size=3),
)
def test_no_two_runs_share_a_place(
    tasks: set[str], recipes: set[str], sparsities: set[int], seeds: set[int]
) -> None:
    """Every job of any grid has a folder of its own, and none lies in another's."""
    patterns = [f"{name}@{s / 100:g}" for s in sparsities for name in ("unstructured", "block:4x1")]
    grid = grid_from(
        small(
            tasks=sorted(tasks),
            recipes=sorted(recipes),
            patterns=[*patterns, "2:4"],
            seeds=sorted(seeds),
        )
    )

    places = sorted(job.folder + "/" for job in grid.jobs())

    assert len(set(places)) == len(places)
    assert not any(b.startswith(a) for a, b in pairwise(places))


@pytest.mark.parametrize("text", ["2:4", "4:8", "block:64x1@0.75", "unstructured@0.9"])
def test_a_pattern_is_spelled_as_it_was_read(text: str) -> None:
    """Spelling a parsed pattern gives the text, and its folder is a plain name."""
    (pattern,) = grid_from(small(patterns=[text])).patterns

    assert pattern_text(pattern) == text
    assert slug(pattern) == text.replace(":", "-").replace("@", "-")


REFUSED = [
    ({"seed": 1}, "unknown field", "seed"),
    ({"tasks": []}, "tasks is empty", None),
    ({"seeds": []}, "seeds is empty", None),
    ({"recipes": []}, "recipes is empty", None),
    ({"patterns": []}, "patterns is empty", None),
    ({"tasks": "mrpc"}, "is damaged", "tasks: Input should be a valid array"),
    ({"tasks": ["mrcp"]}, "tasks[0]: unknown task", "'mrcp'"),
    ({"tasks": ["sst2", "SST-2"]}, "tasks[1] occurs twice", "'SST-2'"),
    ({"tasks": [3]}, "is damaged", "tasks.0: Input should be a valid string"),
    ({"patterns": ["2:4", "3x4"]}, "patterns[1]: unknown pattern", "'3x4'"),
    ({"patterns": ["2:4@0.7"]}, "patterns[0]: 2:4 always has sparsity", "'2:4@0.7'"),
    ({"patterns": ["unstructured@"]}, "patterns[0]: the sparsity is not a number", None),
    ({"patterns": ["unstructured@1"]}, "patterns[0]: sparsity must lie", None),
    ({"patterns": ["unstructured@nan"]}, "patterns[0]: sparsity must lie", None),
    ({"patterns": ["unstructured", "unstructured@0.90"]}, "patterns[1] occurs twice", None),
    ({"recipes": ["spd", "magic"]}, "recipes[1]: unknown recipe", "'magic'"),
    ({"seeds": [True]}, "is damaged", "seeds.0: Input should be a valid integer"),
    ({"seeds": [-1]}, "seeds[0]: a seed must be 0 or more", "-1"),
    ({"seeds": [0.5]}, "is damaged", "seeds.0: Input should be a valid integer"),
    ({"model": ""}, "model is empty", None),
    ({"model": 3}, "is damaged", "model: Input should be a valid string"),
    ({"train": 3}, "is damaged", "train: Input should be an object"),
    ({"train": {"epoch": 3}}, "train has an unknown field", "epoch"),
    ({"train": {"epochs": "3"}}, "train is damaged", None),
    ({"train": {"epochs": 0}}, "train.epochs must be a number above 0", "0"),
    ({"train": {"epochs": float("inf")}}, "not finite", "train.epochs"),
    ({"train": {"max_steps": 1.5}}, "train is damaged", None),
    ({"train": {"cola": {"epochs": 3}}}, "train.cola is not a task of the grid", None),
    ({"train": {"mrpc": {"epochs": True}}}, "train.mrpc is damaged", None),
    ({"train": {"mrpc": {"lr": 1}}}, "train.mrpc has an unknown field", "lr"),
    ({"train": {"mrpc": {}, "MRPC": {}}}, "train.MRPC occurs twice", None),
]


@pytest.mark.parametrize(("changes", "what", "got"), REFUSED, ids=[what for _, what, _ in REFUSED])
def test_nonsense_is_refused_by_field(changes: dict[str, Any], what: str, got: str | None) -> None:
    """The error names the field and what stands there."""
    with pytest.raises(BadSetting) as refused:
        grid_from(small(**changes))

    assert what in refused.value.what
    assert got is None or refused.value.got == got


@pytest.mark.parametrize("name", ["model", "tasks", "patterns", "recipes", "seeds"])
def test_a_missing_field_is_named(name: str) -> None:
    """Only data and train may be left out."""
    value = small()
    del value[name]

    with pytest.raises(BadSetting, match=f"lacks a field; got {name}"):
        grid_from(value)


def test_a_broken_file_is_one_clear_line(tmp_path: Path) -> None:
    """No file, no TOML and a bad field are refusals that name the file."""
    for content, said in (
        (None, "cannot read"),
        (b"model = [", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"model = 'm'", "lacks a field; got tasks"),
    ):
        file = tmp_path / "grid.toml"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(BadSetting, match=said) as refused:
            read_grid(file)
        assert "grid.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("folder", "task"),
    [("MRPC", "mrpc"), ("CoLA", "cola"), ("STS-B", "stsb"), ("SST-2", "sst2"), ("sts_b", "stsb")],
)
def test_a_tasks_folder_is_found_by_its_name(folder: str, task: str, tmp_path: Path) -> None:
    """Case, dashes and underscores do not matter."""
    for name in (folder, "other"):
        (tmp_path / name).mkdir()

    assert data_folder(tmp_path, task) == tmp_path / folder


def test_no_folder_or_two_are_refused(tmp_path: Path) -> None:
    """A task without files is an error at once, not after an hour, and so is a doubt."""
    with pytest.raises(BadData, match="no such folder"):
        data_folder(tmp_path / "nowhere", "mrpc")
    with pytest.raises(BadData, match="no single folder"):
        data_folder(tmp_path, "mrpc")
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "sst2").mkdir()
    with pytest.raises(BadData, match="no single folder") as refused:
        data_folder(tmp_path, "sst2")
    assert refused.value.got == "SST-2, sst2"


def test_built_in_tasks_and_the_hub_need_no_folder(tmp_path: Path) -> None:
    """Without data, or for the tasks that need none, no folder is passed on."""
    assert data_folder(None, "mrpc") is None
    assert data_folder(tmp_path, "opinions") is None


def test_the_command_says_all_of_a_cell(grid: Grid, tmp_path: Path) -> None:
    """Task, data, model, recipe, teacher, pattern with sparsity, options, seed and output."""
    (tmp_path / "CoLA").mkdir()
    here = replace(grid, data=tmp_path)
    pattern = Block(rows=64, columns=1, sparsity=0.75)
    cell = StudentJob(task="cola", pattern=pattern, recipe="prune", seed=2)

    words = train_command(cell, here, Path("out"), device="cuda", resume=True, program=("spd",))

    assert " ".join(words) == (
        f"spd train --task cola --data {tmp_path}/CoLA --model MODEL --recipe prune "
        "--teacher out/teachers/cola/seed-2 --pattern block:64x1 --sparsity 0.75 --epochs 20 "
        "--batch-size 16 --seed 2 --device cuda --output "
        "out/runs/cola/block-64x1-0.75/prune/seed-2 --resume"
    )


def test_the_command_of_a_teacher_has_no_pattern(grid: Grid) -> None:
    """Without a pattern ``spd train`` makes the dense model, and an N:M cell has no sparsity."""
    hub = replace(grid, data=None)
    teacher = TeacherJob(task="mrpc", seed=0)
    cell = StudentJob(task="mrpc", pattern=NM(n=2, m=4), recipe="spd", seed=0)

    assert " ".join(train_command(teacher, hub, Path("out"), program=("spd",))) == (
        "spd train --task mrpc --model MODEL --teacher-epochs 3 --batch-size 16 --seed 0 "
        "--device cpu --output out/teachers/mrpc/seed-0"
    )
    words = train_command(cell, hub, Path("out"))
    assert "--sparsity" not in words and "--data" not in words and "--resume" not in words
