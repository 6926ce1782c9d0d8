"""Families of students: trained one from another, compared with dense models, and written down."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Annotation

from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.compared_model import ComparedModel, beats
from spd_deploy.domain.cores import usable_cores
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import read_json
from spd_deploy.domain.patterns import Structured
from spd_deploy.domain.progress import Silent
from spd_train.config import Recipe
from spd_train.data.splits import Data
from spd_train.family import (
    FAMILY_PICTURE,
    Compare,
    refuse_family,
    train_family,
    validation_drop,
)
from spd_train.family_folders import FAMILY_FILE, folders_of_members
from spd_train.family_result import Comparison
from spd_train.plots.family import family_figure
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.tiny import SIZES, tiny_model
from tests.train.latency import latency_table
from tests.train.runs import TASK, examples, spd_recipe, student_config


def recipe(speedup: float) -> Recipe:
    """The recipe ``spd`` for a speed-up, made short."""
    return replace(spd_recipe(), pattern=Structured(), speedup=speedup)


def config(teacher: Path, output: Path) -> TrainConfig:
    """A run that trains students to speed-ups."""
    return replace(student_config(teacher, output, recipe(2.0)), latency=latency_table())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights."""
    return tiny_model(tmp_path_factory.mktemp("teacher") / "m", task=TASK)


def model(name: str, seconds: float, score: float | None, precision: str = "fp32") -> ComparedModel:
    """A model that was compared."""
    return ComparedModel(
        name=name,
        runtime="onnxruntime",
        precision=precision,
        rounds_s=(seconds, seconds),
        scores={"accuracy": score},
    )


def compared(**speedups: float) -> Compare:
    """A comparison by which models have these speed-ups and an accuracy of 0.8."""

    def compare(models: Mapping[str, Path]) -> Comparison:
        """Every model that the family names, after the dense one in two precisions."""
        dense, *others = models
        found = [model(dense, 1.0, 0.8), model(dense, 0.4, 0.8, "int8")]
        found += [model(name, 1 / speedups[f"of_{name[0]}"], 0.8) for name in others]
        return Comparison(models=tuple(found), where="a test", others_cores=0.0)

    return compare


def train(member: TrainConfig) -> Checkpoint:
    """A real run, in silence."""
    return run(member, Silent())


def test_a_family_has_a_member_for_each_speedup(teacher: Path, tmp_path: Path) -> None:
    """Each starts from the one before; what is measured is written down, a miss with its size."""
    family = train_family(
        config(teacher, tmp_path / "f"),
        (2.0, 4.0),
        train=train,
        compare=compared(of_2=2.1, of_4=3.0),
    )

    assert [m.checkpoint.folder.name for m in family.members] == ["2x", "4x"]
    assert family.comparison is not None
    first, second = (family.comparison.sentence(m.speedup) for m in family.members)
    assert "short of" not in first and "25% short of 4" in second
    assert "0.84x [0.84, 0.84] as fast as dense int8" in first
    assert folders_of_members(tmp_path / "f") == [tmp_path / "f/2x", tmp_path / "f/4x"]
    stored = read_json(tmp_path / "f" / FAMILY_FILE, error=BadSetting, fix="")
    assert [m["measured_speedup"] for m in stored["members"]] == pytest.approx([2.1, 3.0])
    assert family.chosen is family.members[1]
    assert (tmp_path / "f" / FAMILY_PICTURE).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("alone", [True, False])
def test_a_shallower_dense_student_is_trained_beside(
    teacher: Path, tmp_path: Path, alone: bool
) -> None:
    """It has whole layers, its own folder and a sentence; a resumed family trains it once."""
    speedups = (2.0,) if alone else (2.0, 4.0)
    compare = compared(of_2=2.0, of_4=4.0, of_1=2.5)
    trained: list[Path] = []

    def counting(member: TrainConfig) -> Checkpoint:
        """A real run; what was trained before is opened."""
        trained.append(member.output)
        return train(member)

    config_ = config(teacher, tmp_path / "f")
    again = replace(config_, resume=True)
    for one in (config_, again):
        family = train_family(one, speedups, train=counting, compare=compare, layers=(1,))

    assert trained[-1] == tmp_path / "f/layers-1"
    assert open_checkpoint(trained[-1]).density == pytest.approx(1 / SIZES["layers"])
    (sentence,) = family.beside_shallow()
    # The student of 4x is faster than one layer and scores as well; that of 2x is slower.
    assert ("does not pay here" if alone else "is beaten by 4x") in sentence


def test_a_model_beats_another_by_speed_and_score() -> None:
    """It is as fast within 5 % and scores at least as well; an undefined score beats nothing."""
    other = model("3 layers", 0.5, 0.8)
    assert beats(model("2x", 0.52, 0.8), other, "accuracy")
    assert not beats(model("2x", 0.53, 0.9), other, "accuracy")
    assert not beats(model("2x", 0.4, 0.79), other, "accuracy")
    assert not beats(model("2x", 0.4, None), other, "accuracy")
    assert not beats(other, model("2x", 0.9, None), "accuracy")


def test_the_picture_has_a_point_for_each_model() -> None:
    """Milliseconds and score of every model, with its name; one without a score is left out."""
    dense = [model("dense", 0.1, 0.9), model("dense", 0.04, 0.89, "int8")]
    students = [model("2x", 0.05, 0.88), model("5x", 0.02, 0.8), model("9x", 0.01, None)]
    shallow = [model("3 layers", 0.05, 0.7)]
    figure = family_figure(
        dense=dense,
        students=students,
        shallow=shallow,
        title="t",
        metric="accuracy",
        score="accuracy on dev",
        where="here",
    )

    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s", "^")]
    found = np.concatenate([np.asarray(line.get_xydata()) for line in marks])
    drawn = [*dense, *students[:2], *shallow]
    expected = [(1e3 * m.seconds, m.scores["accuracy"]) for m in drawn]
    np.testing.assert_allclose(found, np.array(expected, dtype=float))
    names = {text.get_text(): text.xy for text in axes.texts if isinstance(text, Annotation)}
    assert names.keys() == {"dense fp32", "dense int8", "2x", "5x", "3 layers"}
    assert names["5x"] == pytest.approx((20, 0.8))


def test_names_of_near_points_do_not_overlap() -> None:
    """The boxes of all names are apart, though two points are nearly the same."""
    dense = [model("dense", 0.1, 0.9), model("dense", 0.052, 0.881, "int8")]
    figure = family_figure(
        dense=dense,
        students=[model("2x", 0.05, 0.88), model("5x", 0.02, 0.8)],
        shallow=[],
        title="t",
        metric="accuracy",
        score="accuracy on dev",
        where="here",
    )
    figure.canvas.draw()

    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_times_of_a_busy_machine_come_with_a_warning() -> None:
    """It names the cores; a quiet machine has none. The interval covers what the rounds said."""
    slow = replace(model("dense", 1.0, 0.8), rounds_s=(1.0, 1.2, 0.9))
    models = (slow, replace(model("2x", 0.5, 0.8), rounds_s=(0.5, 0.5, 0.6)))
    quiet = Comparison(models=models, where="a test", others_cores=0.0)
    busy = replace(quiet, others_cores=0.9 * usable_cores())

    assert quiet.warning is None
    assert busy.warning is not None and f"{0.9 * usable_cores():.1f} of" in busy.warning
    measured = quiet.speed_up(models[1])
    assert measured.low < 1.5 < 2.4 < measured.high
    assert measured.numbers in quiet.sentence(2.0)


def test_a_family_ends_where_it_loses_too_much(teacher: Path, tmp_path: Path) -> None:
    """The first member that loses more than allowed is the last; the one before is chosen."""
    config_ = config(teacher, tmp_path / "f")
    drops = {}

    def noting(member: TrainConfig) -> Checkpoint:
        """A real run whose loss is kept."""
        checkpoint = train(member)
        drops[member.output.name] = validation_drop(member.output, ("accuracy",))
        return checkpoint

    whole = train_family(config_, (1.5, 8.0), train=noting, compare=None)
    assert all(drop is not None for drop in drops.values())
    bound = max(drops["1.5x"] or 0.0, 0.0) + 1e-9
    again = train_family(config_, (1.5, 8.0, 9.0), train=noting, compare=None, max_drop=bound)

    assert whole.members[0].drop == again.members[0].drop == drops["1.5x"]
    lost = (drops["8x"] or 0.0) > bound
    assert len(again.members) == (2 if lost else 3)
    assert again.chosen is again.members[0 if lost else -1]


def test_a_family_of_one_is_a_run(teacher: Path, tmp_path: Path) -> None:
    """The output folder itself is the checkpoint."""
    family = train_family(config(teacher, tmp_path / "f"), (2.0,), train=train, compare=None)
    assert family.members[0].checkpoint.folder == tmp_path / "f"
    assert open_checkpoint(tmp_path / "f").pattern is not None


@pytest.mark.parametrize("speedups", [(), (2.0, 2.0), (3.0, 2.0)])
def test_speedups_must_rise(teacher: Path, tmp_path: Path, speedups: tuple[float, ...]) -> None:
    """A family whose speed-ups do not rise is refused."""
    with pytest.raises(BadSetting, match="must rise"):
        refuse_family(config(teacher, tmp_path / "f"), speedups, None)


def test_a_bound_needs_held_out_rows(teacher: Path, tmp_path: Path) -> None:
    """A loss that no row can measure is no bound."""
    config_ = config(teacher, tmp_path / "f")
    without = replace(config_, data=Data.of(examples(48), {"dev": examples(16)}, dev_name="dev"))
    with pytest.raises(BadSetting, match="validation rows"):
        refuse_family(without, (2.0,), 1.0)
