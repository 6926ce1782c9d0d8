"""Whole runs of each recipe on a tiny model: patterns, losses, bits of a resumed one."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import Interrupted
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_train.config import Recipe
from spd_train.plots.curves import curves_figure
from spd_train.recipes import RECIPES, recipe_named, with_field
from spd_train.run import run
from spd_train.training.best_checkpoint import BEST_FILE
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from spd_train.training.state import STATE_FILE
from tests.train.runs import (
    QUICK,
    StopAfter,
    config_for,
    spd_recipe,
    student_config,
    with_pruning,
)

SPD = spd_recipe()
HALF = Unstructured(sparsity=0.5)
VARIANTS = {
    "spd": SPD,
    "spd-block": with_pruning(SPD, Block(rows=8, columns=1, sparsity=0.5)),
    "spd-permuted": with_pruning(SPD, NM(n=2, m=4), permute=True),
    "movement": with_pruning(SPD, HALF, importance="movement", reconstruct=False),
    "taylor-global": with_pruning(SPD, HALF, importance="taylor", allocation="global"),
    "activation-sensitivity": with_pruning(
        SPD, HALF, importance="activation", allocation="sensitivity"
    ),
    "structured": with_pruning(SPD, Structured(sparsity=0.5), importance="taylor"),
}


@pytest.fixture(scope="module", params=VARIANTS)
def whole(
    request: pytest.FixtureRequest, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Checkpoint]:
    """Each recipe with what it gives when it is never stopped."""
    recipe = VARIANTS[request.param]
    output = tmp_path_factory.mktemp("whole") / "run"
    return recipe, run(student_config(teacher, output, recipe), Silent())


def test_every_recipe_resumes_to_the_bit(
    teacher: Path, tmp_path: Path, whole: tuple[Recipe, Checkpoint]
) -> None:
    """Stopped between mask updates, while grafting and in the last stage, the bits are the same."""
    recipe, expected = whole
    total = len(
        [r for r in read_metrics_log(expected.folder / METRICS_FILE) if r["kind"] == "step"]
    )
    assert total == 24
    request = student_config(teacher, tmp_path / "parts", recipe)
    for i, steps in enumerate((3, 6, 7)):  # the prune stage has 6 steps, the graft stage 3
        with pytest.raises(Interrupted):
            run(replace(request, resume=i > 0, should_stop=StopAfter(steps)), Silent())

    found = run(replace(request, resume=True), Silent())

    assert found.weights.read_bytes() == expected.weights.read_bytes()
    assert (found.folder / SPD_FILE).read_text() == (expected.folder / SPD_FILE).read_text()
    assert read_metrics_log(found.folder / METRICS_FILE) == read_metrics_log(
        expected.folder / METRICS_FILE
    )
    assert not (found.folder / STATE_FILE).exists() and not (found.folder / BEST_FILE).exists()


def test_every_recipe_keeps_its_pattern(whole: tuple[Recipe, Checkpoint]) -> None:
    """Whatever scores, regrows, solves and spreads: in the end each matrix holds its target."""
    recipe, found = whole
    weights = load_file(found.weights)
    sizes = {m.name: m.shape[0] * m.shape[1] for m in found.encoder.matrices()}
    kept = 0
    for matrix in found.encoder.matrices():
        pattern = found.pattern_of(matrix)
        weight = weights[matrix.weight_name]
        assert pattern is not None and pattern.holds(weight)
        assert found.densities[matrix.name] == float(weight.count_nonzero()) / weight.numel()
        kept += int(weight.count_nonzero())
    assert kept / sum(sizes.values()) == pytest.approx(0.5, abs=0.01)
    assert bool(found.sparsities) == (recipe.student.pruning.allocation != "uniform")


@pytest.mark.parametrize("name", RECIPES)
def test_every_built_in_recipe_trains(teacher: Path, tmp_path: Path, name: str) -> None:
    """Each of them, as it is but for its length, ends with its pattern and its own losses."""
    student = RECIPES[name]().lasting(3)
    recipe = with_field(
        replace(QUICK, name=name, student=student), "student.pruning.calibration_tokens", 64
    )

    found = run(student_config(teacher, tmp_path / "run", recipe), Silent())

    assert set(found.densities.values()) == {0.5}
    first, *_ = log = read_metrics_log(found.folder / METRICS_FILE)
    assert len(curves_figure(log, title=name, metric="accuracy", measured_on="dev").axes) >= 4
    losses = student.losses
    weights = {
        "attention_loss": losses.attention,
        "hidden_loss": losses.hidden,
        "logits_loss": losses.logits,
        "label_loss": losses.label,
    }
    assert weights.keys() & first.keys() == {name for name, weight in weights.items() if weight}


@pytest.mark.parametrize("allocation", ["uniform", "global", "sensitivity"])
def test_what_is_excluded_stays_dense(teacher: Path, tmp_path: Path, allocation: str) -> None:
    """Excluded matrices have no zeros and sparsity 0 in ``spd.json``; others meet the target."""
    recipe = with_pruning(QUICK, HALF, allocation=allocation, exclude=("layer.0", "query"))

    found = run(student_config(teacher, tmp_path / "run", recipe), Silent())

    matrices = list(found.encoder.matrices())
    dense = [m for m in matrices if ".layer.0." in m.name or "query" in m.name]
    pruned = [m for m in matrices if m not in dense]
    assert len(dense) == 7 and len(pruned) == 5
    for matrix in dense:
        assert found.densities[matrix.name] == 1.0
        assert found.sparsities[matrix.name] == 0.0
        assert found.pattern_of(matrix) is None
    sizes = {m.name: m.shape[0] * m.shape[1] for m in pruned}
    left = sum(found.densities[n] * size for n, size in sizes.items())
    assert left / sum(sizes.values()) == pytest.approx(0.5, abs=0.01)
    assert open_checkpoint(found.folder).sparsities == found.sparsities


def test_the_recipe_of_a_run_gives_the_run_again(
    finished: Path, model: Path, tmp_path: Path
) -> None:
    """What stands in ``spd.json`` is the whole recipe: same data and model, same bits."""
    recipe = recipe_named(str(finished / SPD_FILE))
    assert recipe == QUICK

    again = run(config_for(model, tmp_path / "again", recipe), Silent())

    for part in (".", "teacher"):
        ours, theirs = tmp_path / "again" / part, finished / part
        assert (ours / WEIGHTS_FILE).read_bytes() == (theirs / WEIGHTS_FILE).read_bytes()
    assert again.to_json() == open_checkpoint(finished).to_json()
