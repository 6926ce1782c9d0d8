"""Whole runs that prune to a speed-up: the latency table decides what each layer keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel, BadSetting, Interrupted
from spd_deploy.domain.files import read_json
from spd_deploy.domain.measured_speedup import MeasuredSpeedup
from spd_deploy.domain.patterns import Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures
from spd_train.config import Recipe
from spd_train.data.splits import Data
from spd_train.family import (
    FAMILY_FILE,
    FAMILY_PICTURE,
    held_out_drop,
    refuse_family,
    train_family,
)
from spd_train.family_folders import folders_of_members
from spd_train.plots.family import FamilyPoint, family_figure
from spd_train.pruning.structured.curves import sublayers_of
from spd_train.recipes import recipe_named, with_fields
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.tiny import SIZES, tiny_model
from tests.train.latency import latency_table
from tests.train.runs import TASK, StopAfter, examples, spd_recipe, student_config


def recipe(speedup: float) -> Recipe:
    """The recipe ``spd`` for a speed-up, made short."""
    return replace(spd_recipe(), pattern=Structured(), speedup=speedup)


def config(teacher: Path, output: Path, speedup: float) -> TrainConfig:
    """A run that trains a student to a speed-up."""
    return replace(student_config(teacher, output, recipe(speedup)), latency=latency_table())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights."""
    return tiny_model(tmp_path_factory.mktemp("teacher") / "m", task=TASK)


def structures(checkpoint: Checkpoint) -> Structures:
    """What each layer of a checkpoint keeps, read off its zeros."""
    state = load_file(checkpoint.weights)
    kept: dict[bool, list[int]] = {True: [], False: []}
    for unit in sublayers_of(checkpoint.encoder):
        alive = (state[unit.reader.weight_name] != 0).any(0).reshape(-1, unit.width).any(1)
        kept[unit.is_attention].append(int(alive.sum()))
    return Structures(heads=tuple(kept[True]), neurons=tuple(kept[False]))


@pytest.mark.parametrize("speedup", [1.5, 3.0, 8.0])
def test_what_is_left_is_as_fast_as_asked(teacher: Path, tmp_path: Path, speedup: float) -> None:
    """By the table the student reaches the speed-up, and is not much faster than that."""
    checkpoint = run(config(teacher, tmp_path / "run", speedup), Silent())

    reached = latency_table().speedup(structures(checkpoint))
    assert speedup - 1e-9 <= reached <= 1.25 * speedup
    assert str(open_checkpoint(checkpoint.folder).pattern) == "structured"
    assert checkpoint.recipe["speedup"] == speedup
    assert Recipe.from_json(checkpoint.recipe) == recipe(speedup)


def test_a_measurement_corrects_the_table(teacher: Path, tmp_path: Path) -> None:
    """Where networks turn out slower than the table says, more is removed."""
    seen = []

    def measure(found: Structures) -> float:
        seen.append(latency_table().speedup(found))
        return 0.8 * seen[-1]

    checkpoint = run(replace(config(teacher, tmp_path / "run", 3.0), measure=measure), Silent())

    assert seen[0] < seen[-1]
    assert 0.8 * latency_table().speedup(structures(checkpoint)) >= 0.95 * 3.0


def test_a_stopped_run_ends_as_if_it_was_not(teacher: Path, tmp_path: Path) -> None:
    """Stopped between mask updates and resumed, it has the same weights."""
    whole = run(config(teacher, tmp_path / "a", 3.0), Silent())
    stopped = config(teacher, tmp_path / "b", 3.0)
    with pytest.raises(Interrupted):
        run(replace(stopped, should_stop=StopAfter(5)), Silent())
    resumed = run(replace(stopped, resume=True), Silent())

    assert whole.weights.read_bytes() == resumed.weights.read_bytes()


def test_a_student_is_pruned_further(teacher: Path, tmp_path: Path) -> None:
    """What the first student has lost the second does not get back."""
    first = run(config(teacher, tmp_path / "2x", 2.0), Silent())
    second = run(replace(config(teacher, tmp_path / "4x", 4.0), start=first.folder), Silent())

    before, after = load_file(first.weights), load_file(second.weights)
    for matrix in first.encoder.matrices():
        gone = before[matrix.weight_name] == 0
        assert not after[matrix.weight_name][gone].any()
    assert latency_table().speedup(structures(second)) >= 4.0 - 1e-9


def measured(*ratios: float) -> Callable[[Path], MeasuredSpeedup]:
    """Measurements that give these speed-ups in turn."""
    given = iter(ratios)
    return lambda folder: MeasuredSpeedup(
        shapes=(Shape(batch=1, seq=8),),
        dense_rounds_s=((1.0,),),
        sparse_rounds_s=((1 / next(given),),),
        where="a test",
    )


def test_a_family_has_a_member_for_each_speedup(teacher: Path, tmp_path: Path) -> None:
    """Each starts from the one before; what is measured is written down, a miss with its size."""
    family = train_family(
        config(teacher, tmp_path / "f", 2.0),
        (2.0, 4.0),
        train=lambda c: run(c, Silent()),
        measure=measured(2.1, 3.0),
    )

    assert [m.checkpoint.folder.name for m in family.members] == ["2x", "4x"]
    first, second = (m.speed.sentence(m.speedup) for m in family.members if m.speed)
    assert "short of" not in first and "25% short of 4" in second
    assert folders_of_members(tmp_path / "f") == [tmp_path / "f/2x", tmp_path / "f/4x"]
    stored = read_json(tmp_path / "f" / FAMILY_FILE, error=BadSetting, fix="")
    assert [m["measured"]["ratio"] for m in stored["members"]] == pytest.approx([2.1, 3.0])
    assert family.chosen is family.members[1]
    assert (tmp_path / "f" / FAMILY_PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_point_for_each_model() -> None:
    """Time in milliseconds and score of the dense model and of each student, with its name."""
    dense, *students = points = [
        FamilyPoint(name=name, seconds=seconds, score=score)
        for name, seconds, score in (("dense", 0.1, 0.9), ("2x", 0.05, 0.88), ("5x", 0.02, 0.8))
    ]
    figure = family_figure(dense, students, title="t", metric="f1", where="here")

    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    found = [tuple(np.asarray(line.get_xydata())[0]) for line in marks]
    assert found == [(pytest.approx(1e3 * p.seconds), p.score) for p in points]
    assert [text.get_text() for text in axes.texts] == ["dense", "2x", "5x"]


def test_a_family_ends_where_it_loses_too_much(teacher: Path, tmp_path: Path) -> None:
    """The first member that loses more than allowed is the last; the one before is chosen."""
    config_ = config(teacher, tmp_path / "f", 2.0)
    drops = {}

    def train(member: TrainConfig) -> Checkpoint:
        checkpoint = run(member, Silent())
        drops[member.output.name] = held_out_drop(member.output, ("accuracy",))
        return checkpoint

    whole = train_family(config_, (1.5, 8.0), train=train, measure=None)
    assert all(drop is not None for drop in drops.values())
    bound = max(drops["1.5x"] or 0.0, 0.0) + 1e-9
    again = train_family(config_, (1.5, 8.0, 9.0), train=train, measure=None, max_drop=bound)

    assert whole.members[0].drop == again.members[0].drop == drops["1.5x"]
    lost = (drops["8x"] or 0.0) > bound
    assert len(again.members) == (2 if lost else 3)
    assert again.chosen is again.members[0 if lost else -1]


def test_a_family_of_one_is_a_run(teacher: Path, tmp_path: Path) -> None:
    """The output folder itself is the checkpoint."""
    family = train_family(
        config(teacher, tmp_path / "f", 2.0),
        (2.0,),
        train=lambda c: run(c, Silent()),
        measure=None,
    )
    assert family.members[0].checkpoint.folder == tmp_path / "f"
    assert open_checkpoint(tmp_path / "f").pattern is not None


@pytest.mark.parametrize("speedups", [(), (2.0, 2.0), (3.0, 2.0)])
def test_speedups_must_rise(teacher: Path, tmp_path: Path, speedups: tuple[float, ...]) -> None:
    """A family whose speed-ups do not rise is refused."""
    with pytest.raises(BadSetting, match="must rise"):
        refuse_family(config(teacher, tmp_path / "f", 2.0), speedups, None)


def test_a_bound_needs_held_out_rows(teacher: Path, tmp_path: Path) -> None:
    """A loss that no row can measure is no bound."""
    config_ = config(teacher, tmp_path / "f", 2.0)
    without = replace(config_, data=Data.of(examples(48), {"dev": examples(16)}, dev_name="dev"))
    with pytest.raises(BadSetting, match="held-out rows"):
        refuse_family(without, (2.0,), 1.0)


@pytest.mark.parametrize("speedup", [50.0, 1.0, float("nan")])
def test_what_cannot_be_reached_is_refused_before_training(
    teacher: Path, tmp_path: Path, speedup: float
) -> None:
    """The error names the fastest speed-up that there is; nothing is written."""
    with pytest.raises(BadSetting, match=r"so much faster than dense|must be above 1"):
        run(config(teacher, tmp_path / "run", speedup), Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pattern", [Block(rows=8, columns=1), Unstructured()])
def test_patterns_that_do_not_shrink_are_refused(pattern: Block | Unstructured) -> None:
    """A speed-up by heads and neurons needs the structured pattern."""
    with pytest.raises(BadSetting, match="removes heads and neurons"):
        replace(recipe_named("spd"), pattern=pattern, speedup=2.0)


def test_another_start_is_refused(teacher: Path, tmp_path: Path) -> None:
    """A student of another encoder is no start."""
    other = tiny_model(tmp_path / "other", task=TASK, layers=3)
    with pytest.raises(BadModel, match="another encoder"):
        run(replace(config(teacher, tmp_path / "run", 2.0), start=other), Silent())


def test_a_table_is_needed(teacher: Path, tmp_path: Path) -> None:
    """Without a latency table there is no speed-up."""
    with pytest.raises(BadSetting, match="needs the latency table"):
        run(replace(config(teacher, tmp_path / "run", 2.0), latency=None), Silent())


@pytest.mark.parametrize(("layers", "kept"), [(1, {3}), (3, {0, 2, 3}), (2, {1, 3})])
def test_a_shallower_student_keeps_whole_layers(
    tmp_path: Path, layers: int, kept: set[int]
) -> None:
    """The layers that are kept are spread evenly and dense; the others have no weight."""
    teacher = tiny_model(tmp_path / "m", task=TASK, layers=4)
    shallow = with_fields(
        spd_recipe(), {"pattern": Structured(), "student.pruning.keep_layers": layers}
    )
    checkpoint = run(student_config(teacher, tmp_path / "run", shallow), Silent())

    found = structures(checkpoint)
    whole = [(SIZES["heads"], SIZES["intermediate"]) if i in kept else (0, 0) for i in range(4)]
    assert list(found.layers()) == whole


def test_no_fewer_layers_are_refused(teacher: Path, tmp_path: Path) -> None:
    """A student as deep as its teacher is no shallower one."""
    deep = with_fields(
        spd_recipe(), {"pattern": Structured(), "student.pruning.keep_layers": SIZES["layers"]}
    )
    with pytest.raises(BadSetting, match="the model has 2 layers"):
        run(student_config(teacher, tmp_path / "run", deep), Silent())
    with pytest.raises(BadSetting, match="under the structured pattern"):
        with_fields(deep, {"pattern": Unstructured()})
