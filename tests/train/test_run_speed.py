"""Whole runs that prune to a speed-up: the latency table decides what each layer keeps."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel, BadSetting, Interrupted
from spd_deploy.domain.patterns import Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.structures import Structures
from spd_train.config import Recipe
from spd_train.pruning.structured.curves import sublayers_of
from spd_train.recipes import recipe_named, with_fields
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.tiny import SIZES, tiny_model
from tests.train.latency import latency_table
from tests.train.runs import TASK, StopAfter, spd_recipe, student_config


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
