"""Whole runs on a tiny model: what comes out, what is learned, what is chosen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.folders import RUN_FILE
from spd_deploy.domain.patterns import Block, Pattern, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.sessions.torch import TorchSession
from spd_train.config import Recipe, TeacherRecipe
from spd_train.data.splits import Data
from spd_train.plots.curves import CURVES_FILE
from spd_train.recipes import with_field
from spd_train.run import run
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from spd_train.training.mixed_precision import choose_precision
from spd_train.training.state import STATE_FILE
from tests.train.runs import DATA, QUICK, config_for, examples, spd_recipe, student_config


def test_a_run_leaves_a_whole_checkpoint(finished: Path) -> None:
    """Teacher and student open and are verified, with log and curves beside them, state gone."""
    student, teacher = open_checkpoint(finished), open_checkpoint(finished / "teacher")

    assert str(student.pattern) == "2:4"
    assert set(student.densities.values()) == {0.5}
    assert student.parents == {"teacher": teacher.weights_sha256}
    assert set(student.scores) == {"dense", "sparse"}
    assert student.scores["dense"] == teacher.scores["dense"]
    for folder in (finished, finished / "teacher"):
        assert (folder / CURVES_FILE).read_bytes().startswith(b"\x89PNG")
    assert not list(finished.rglob(STATE_FILE))
    TorchSession(finished).close()


def test_nothing_in_a_checkpoint_names_a_place(finished: Path, model: Path) -> None:
    """No JSON of a run holds a path of the machine it was made on."""
    for file in finished.rglob("*.json"):
        assert str(model) not in file.read_text()
        assert str(finished) not in file.read_text()


def test_embeddings_pooler_and_classifier_stay_the_teachers(finished: Path) -> None:
    """What SPD freezes is equal bit for bit; the encoder is not."""
    student = load_file(finished / WEIGHTS_FILE)
    teacher = load_file(finished / "teacher" / WEIGHTS_FILE)

    assert student.keys() == teacher.keys()
    for name, value in teacher.items():
        assert torch.equal(value, student[name]) == (".encoder." not in name), name


def test_the_log_tells_the_schedules(finished: Path) -> None:
    """Every step is there with its losses; sparsity and graft probability end where they should."""
    records = read_metrics_log(finished / METRICS_FILE)
    steps = [r for r in records if r["kind"] == "step"]

    assert [r["step"] for r in steps] == list(range(24))
    assert [r["stage"] for r in steps] == ["prune"] * 12 + ["graft"] * 6 + ["finetune"] * 6
    assert steps[-1]["sparsity"] == 0.5
    assert steps[-1]["graft_probability"] == 1.0
    for r in steps:
        parts = r["attention_loss"] + r["hidden_loss"] + r["logits_loss"]
        assert r["loss"] == pytest.approx(parts, rel=1e-5)
    scores = [r for r in records if r["kind"] == "score"]
    assert [r["step"] for r in scores] == [5, 11, 17, 23]
    assert all({"train", "holdout"} <= r.keys() and "dev" not in r for r in scores)
    assert [r["kind"] for r in records].index("final") == len(records) - 1
    assert records[-1]["dev"]["accuracy"] == open_checkpoint(finished).scores["sparse"]["accuracy"]


def test_a_given_teacher_is_not_trained(model: Path, finished: Path, tmp_path: Path) -> None:
    """With --teacher only the student is trained, and the teacher is scored as it is."""
    config = replace(
        config_for(model, tmp_path / "run"), model=None, teacher=str(finished / "teacher")
    )

    found = run(config, Silent())

    assert not (tmp_path / "run" / "teacher").exists()
    assert found.scores["dense"] == open_checkpoint(finished).scores["dense"]
    assert load_file(found.weights).keys() == load_file(finished / WEIGHTS_FILE).keys()


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        """Keep the text."""
        self.told.append(text)


def test_a_model_that_learns_one_answer_is_told_of(model: Path, tmp_path: Path) -> None:
    """Where train has one label alone, teacher and student answer it for all validation rows."""
    rows = [replace(row, label=0) for row in examples(48)]
    data = Data.of(rows, {"dev": examples(16)}, dev_name="dev", holdout=examples(24))
    config = replace(config_for(model, tmp_path / "run"), data=data)
    slow = replace(config.recipe, teacher=TeacherRecipe(epochs=4, learning_rate=1e-2))

    run(replace(config, recipe=slow), notes := Notes())

    for name in ("dense model", "student"):
        (line,) = (text for text in notes.told if f"the {name} answers" in text)
        assert "'negative' for 24 of 24 rows" in line


def test_each_mask_update_is_announced(model: Path, tmp_path: Path) -> None:
    """A log says why a step takes longer, before it does: one line for each mask update."""
    config = config_for(model, tmp_path / "run", QUICK)
    run(config, notes := Notes())

    updates = config.recipe.student.pruning.updates
    told = [text for text in notes.told if text.startswith("mask update")]
    numbers = [text.split(" at step ")[0] for text in told]
    assert numbers == [f"mask update {i + 1} of {updates}" for i in range(updates)]


@pytest.mark.parametrize(
    "pattern",
    [
        Unstructured(sparsity=0.9),
        Block(rows=8, columns=1, sparsity=0.75),
        Structured(sparsity=0.5),
    ],
    ids=str,
)
def test_every_pattern_comes_out_of_training(model: Path, tmp_path: Path, pattern: Pattern) -> None:
    """The trained weights have the zeros that the pattern asks for, coupled slices together."""
    found = run(config_for(model, tmp_path / "run", replace(QUICK, pattern=pattern)), Silent())

    weights = load_file(found.weights)
    for matrix in found.encoder.matrices():
        placed = found.encoder.pattern_on(matrix, pattern)
        assert placed.holds(weights[matrix.weight_name])
        assert found.densities[matrix.name] == pytest.approx(1 - pattern.sparsity, abs=0.02)
    if isinstance(pattern, Structured):
        first = weights["bert.encoder.layer.0.intermediate.dense.weight"].abs().sum(1) > 0
        second = weights["bert.encoder.layer.0.output.dense.weight"].abs().sum(0) > 0
        assert torch.equal(first, second)


def test_training_learns(model: Path, tmp_path: Path) -> None:
    """Given enough epochs on an easy task, teacher and 2:4 student answer all of train rightly."""
    recipe = replace(
        QUICK,
        teacher=TeacherRecipe(epochs=20, learning_rate=2e-3),
        student=replace(QUICK.student, prune_epochs=8, graft_epochs=4, finetune_epochs=8),
    )

    run(config_for(model, tmp_path / "run", recipe), Silent())

    for log in (tmp_path / "run/teacher" / METRICS_FILE, tmp_path / "run" / METRICS_FILE):
        (last,) = (r for r in read_metrics_log(log) if r["kind"] == "final")
        assert last["train"]["accuracy"] == 1.0


@pytest.mark.parametrize("recipe", [QUICK, spd_recipe()], ids=["quick", "spd"])
def test_the_best_on_what_was_held_out_is_kept(
    teacher: Path, tmp_path: Path, recipe: Recipe
) -> None:
    """Of the scores after the masks are final, the last of the highest on holdout was chosen."""
    recipe = with_field(recipe, "student.learning_rate", 3e-3)

    found = run(student_config(teacher, tmp_path / "run", recipe), Silent())

    records = read_metrics_log(found.folder / METRICS_FILE)
    steps = [r for r in records if r["kind"] == "step"]
    first = next(r["step"] for r in steps if r["sparsity"] == steps[-1]["sparsity"])
    scores = [r for r in records if r["kind"] == "score" and r["step"] >= first]
    best = max(scores, key=lambda r: (r["holdout"]["accuracy"], r["step"]))
    (final,) = (r for r in records if r["kind"] == "final")
    assert final["chosen_step"] == best["step"] + 1
    assert final["holdout"] == best["holdout"] and final["train"] == best["train"]


def test_without_holdout_the_last_weights_are_kept(teacher: Path, tmp_path: Path) -> None:
    """Nothing is chosen: the step is the last, and no score of a holdout is in the log."""
    data = Data.of(DATA.train, DATA.dev, dev_name="dev")
    config = student_config(teacher, tmp_path / "run", replace(QUICK, holdout=0.0), data)

    run(config, Silent())

    *_, final = records = read_metrics_log(tmp_path / "run" / METRICS_FILE)
    assert final["chosen_step"] == 24
    assert not any("holdout" in r for r in records)


def test_a_new_head_is_drawn_by_the_seed(model: Path, tmp_path: Path) -> None:
    """Whatever ran before in the process, a seed gives one dense model; another gives another."""
    encoder = Path(shutil.copytree(model, tmp_path / "encoder"))
    weights = load_file(encoder / WEIGHTS_FILE)
    bare = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(bare, encoder / WEIGHTS_FILE, metadata={"format": "pt"})
    found = []
    for i, seed in enumerate((1, 0, 1)):
        torch.manual_seed(100 + i)  # what another run leaves behind
        recipe = replace(QUICK, pattern=None, seed=seed, teacher=TeacherRecipe(epochs=0.5))
        made = run(config_for(encoder, tmp_path / str(i), recipe), Silent())
        found.append(made.weights.read_bytes())

    assert found[0] == found[2] != found[1]


def test_what_was_trained_in_is_written_down(model: Path, tmp_path: Path) -> None:
    """``auto`` is what it came to, in the checkpoint and for a resumed run."""
    recipe = replace(QUICK, pattern=None, precision="auto", teacher=TeacherRecipe(epochs=0.5))

    made = run(config_for(model, tmp_path / "run", recipe), Silent())

    expected = choose_precision("auto", "cpu").name
    for name in (SPD_FILE, RUN_FILE):
        assert json.loads((made.folder / name).read_text())["recipe"]["precision"] == expected


def test_what_is_held_out_is_never_trained_on(teacher: Path, tmp_path: Path) -> None:
    """Other rows held out change no step of the training; other dev rows not even the choice."""
    held = Data.of(DATA.train, DATA.dev, dev_name="dev", holdout=examples(20))
    dev = Data.of(DATA.train, {"dev": examples(30)}, dev_name="dev", holdout=DATA.holdout)
    steps, weights = {}, {}
    for name, data in (("usual", DATA), ("held", held), ("dev", dev)):
        found = run(student_config(teacher, tmp_path / name, QUICK, data), Silent())
        records = read_metrics_log(found.folder / METRICS_FILE)
        steps[name] = [r for r in records if r["kind"] == "step"]
        weights[name] = found.weights.read_bytes()

    assert steps["held"] == steps["usual"] and steps["dev"] == steps["usual"]
    assert weights["dev"] == weights["usual"]


@pytest.mark.gpu
def test_a_gpu_trains_too(model: Path, tmp_path: Path) -> None:
    """On CUDA a run ends with a checkpoint whose pattern holds."""
    found = run(config_for(model, tmp_path / "run", replace(QUICK, device="cuda")), Silent())

    assert set(found.densities.values()) == {0.5}
