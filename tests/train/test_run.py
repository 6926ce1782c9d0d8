"""Whole runs on a tiny model: what comes out, stopping and resuming, and what is refused."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadModel,
    BadPattern,
    BadSetting,
    Diverged,
    Interrupted,
    NotWritten,
    SpdError,
)
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import TASKS
from spd_deploy.sessions.torch import TorchSession
from spd_train.claiming import RUN_FILE
from spd_train.data.batches import epoch_batches
from spd_train.data.examples import Example
from spd_train.data.splits import Data
from spd_train.recipe import (
    GraftRecipe,
    LossRecipe,
    PruneRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
)
from spd_train.recipes import ARMS, changed, recipe_named
from spd_train.reports.curves import CURVES_FILE
from spd_train.run import Request, run
from spd_train.training.journal import JOURNAL_FILE, read_journal
from spd_train.training.selection import BEST_FILE
from spd_train.training.state import STATE_FILE
from tests.tiny import tiny_checkpoint, tiny_model
from tests.train.runs import DATA, QUICK, TASK, StopAfter, examples, request_for, spd_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("run") / "model", task=TASK, hidden=32, intermediate=64
    )


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    output = tmp_path_factory.mktemp("finished") / "run"
    run(request_for(model, output), Silent())
    return output


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
    records = read_journal(finished / JOURNAL_FILE)
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


@pytest.mark.parametrize("stops", [[5], [12 + 3], [12 + 12], [2, 12 + 5, 7]])
def test_resumed_equals_uninterrupted(
    model: Path, finished: Path, tmp_path: Path, stops: list[int]
) -> None:
    """A run stopped in any training, once or often, ends with the bits of one that was not."""
    request = request_for(model, tmp_path / "run")
    for i, steps in enumerate(stops):
        with pytest.raises(Interrupted, match="stopped at step"):
            run(replace(request, resume=i > 0, should_stop=StopAfter(steps)), Silent())
        assert not (tmp_path / "run" / SPD_FILE).exists()

    run(replace(request, resume=True), Silent())

    for part in (".", "teacher"):
        ours, theirs = tmp_path / "run" / part, finished / part
        assert (ours / WEIGHTS_FILE).read_bytes() == (theirs / WEIGHTS_FILE).read_bytes()
        assert (ours / SPD_FILE).read_text() == (theirs / SPD_FILE).read_text()
        assert read_journal(ours / JOURNAL_FILE) == read_journal(theirs / JOURNAL_FILE)


def test_a_finished_run_is_not_run_again(model: Path, finished: Path) -> None:
    """Resuming what is finished gives the checkpoint that is there."""
    before = (finished / WEIGHTS_FILE).stat().st_mtime_ns

    found = run(replace(request_for(model, finished), resume=True), Silent())

    assert found.folder == finished
    assert (finished / WEIGHTS_FILE).stat().st_mtime_ns == before


def test_other_settings_do_not_resume(model: Path, finished: Path) -> None:
    """A resumed run with another seed is refused, naming both."""
    request = replace(request_for(model, finished, replace(QUICK, seed=1)), resume=True)

    with pytest.raises(BadSetting, match=r"another recipe\.seed"):
        run(request, Silent())


def test_an_output_that_exists_is_not_touched(model: Path, finished: Path) -> None:
    """Without --resume a folder with something in it is refused."""
    with pytest.raises(NotWritten, match="already exists"):
        run(request_for(model, finished), Silent())


def test_there_must_be_something_to_resume(model: Path, tmp_path: Path) -> None:
    """Resuming an empty folder says that there is no run."""
    with pytest.raises(BadCheckpoint, match=RUN_FILE) as caught:
        run(replace(request_for(model, tmp_path / "new"), resume=True), Silent())

    assert "no run to resume" in caught.value.fix


def test_a_state_of_another_run_is_refused(model: Path, tmp_path: Path) -> None:
    """A state file that was copied in from elsewhere is found out."""
    for name, seed in (("a", 0), ("b", 1)):
        request = request_for(model, tmp_path / name, replace(QUICK, seed=seed))
        with pytest.raises(Interrupted):
            run(replace(request, should_stop=StopAfter(3)), Silent())
    shutil.copy(tmp_path / "a/teacher" / STATE_FILE, tmp_path / "b/teacher" / STATE_FILE)

    with pytest.raises(BadCheckpoint, match="belongs to a run with other settings"):
        run(replace(request, resume=True), Silent())


def test_a_given_teacher_is_not_trained(model: Path, finished: Path, tmp_path: Path) -> None:
    """With --teacher only the student is trained, and the teacher is scored as it is."""
    request = replace(
        request_for(model, tmp_path / "run"), model=None, teacher=str(finished / "teacher")
    )

    found = run(request, Silent())

    assert not (tmp_path / "run" / "teacher").exists()
    assert found.scores["dense"] == open_checkpoint(finished).scores["dense"]
    assert load_file(found.weights).keys() == load_file(finished / WEIGHTS_FILE).keys()


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
    found = run(request_for(model, tmp_path / "run", replace(QUICK, pattern=pattern)), Silent())

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

    run(request_for(model, tmp_path / "run", recipe), Silent())

    for log in (tmp_path / "run/teacher" / JOURNAL_FILE, tmp_path / "run" / JOURNAL_FILE):
        (last,) = (r for r in read_journal(log) if r["kind"] == "final")
        assert last["train"]["accuracy"] == 1.0


def test_a_diverged_run_says_so(model: Path, tmp_path: Path) -> None:
    """A loss that is not a number stops the run with advice."""
    recipe = replace(QUICK, teacher=TeacherRecipe(epochs=4, learning_rate=1e30))

    with pytest.raises(Diverged, match="diverged"):
        run(request_for(model, tmp_path / "run", recipe), Silent())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (lambda: TeacherRecipe(epochs=0), BadSetting),
        (lambda: TeacherRecipe(learning_rate=float("nan")), BadSetting),
        (lambda: StudentRecipe(prune_epochs=0), BadSetting),
        (lambda: GraftRecipe(start=1.5), BadSetting),
        (lambda: LossRecipe(attention=0, hidden=0, logits=0, label=0), BadSetting),
        (lambda: LossRecipe(temperature=0), BadSetting),
        (lambda: PruneRecipe(updates=0), BadSetting),
        (lambda: PruneRecipe(least_density=1), BadSetting),
        (lambda: StudentRecipe(finetune_epochs=-1), BadSetting),
        (lambda: StudentRecipe(warmup_share=1.0), BadSetting),
        (lambda: QUICK.student.lasting(0), BadSetting),
        (lambda: replace(QUICK, accumulate=0), BadSetting),
        (lambda: replace(QUICK, holdout=1.0), BadSetting),
        (lambda: replace(QUICK, max_steps=0), BadSetting),
        (lambda: replace(QUICK, batch_size=0), BadSetting),
        (lambda: replace(QUICK, max_tokens=2), BadSetting),
    ],
)
def test_settings_that_make_no_run_are_refused(settings: object, error: type[SpdError]) -> None:
    """A recipe refuses nonsense when it is made."""
    assert callable(settings)
    with pytest.raises(error):
        settings()


def test_a_pattern_the_model_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    """Dimensions are checked before the teacher is trained."""
    recipe = replace(QUICK, pattern=Block(rows=24, columns=1))

    with pytest.raises(BadPattern, match="divide"):
        run(request_for(model, tmp_path / "run", recipe), Silent())

    assert not (tmp_path / "run").exists()


def broken(model: Path, folder: Path, kind: str) -> Path:
    """A model with one thing wrong."""
    copy = Path(shutil.copytree(model, folder / kind))
    config = json.loads((copy / "config.json").read_text())
    match kind:
        case "other":
            (copy / "config.json").write_text(json.dumps(config | {"model_type": "distilbert"}))
        case "damaged":
            (copy / WEIGHTS_FILE).write_bytes((copy / WEIGHTS_FILE).read_bytes()[:-100])
        case "pickled":
            (copy / WEIGHTS_FILE).rename(copy / "pytorch_model.bin")
        case "deeper":
            (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
        case "wordless":
            (copy / "tokenizer.json").write_text("{}")
    return copy


@pytest.mark.parametrize("kind", ["other", "damaged", "pickled", "deeper", "wordless"])
def test_a_model_that_will_not_do_is_refused(model: Path, tmp_path: Path, kind: str) -> None:
    """Another architecture, damaged, pickled or missing weights, no tokenizer: each is named."""
    with pytest.raises(BadModel):
        run(request_for(broken(model, tmp_path, kind), tmp_path / "run"), Silent())

    assert not (tmp_path / "run").exists()


def test_a_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """A path that does not exist is named, and nothing is fetched."""
    with pytest.raises(BadModel, match="no such model folder"):
        run(request_for(tmp_path / "nowhere", tmp_path / "run"), Silent())


def test_a_teacher_without_a_classifier_is_refused(model: Path, tmp_path: Path) -> None:
    """A pretrained encoder alone is no teacher."""
    from transformers import BertModel

    copy = Path(shutil.copytree(model, tmp_path / "encoder"))
    BertModel.from_pretrained(model).save_pretrained(copy)
    request = replace(request_for(model, tmp_path / "run"), model=None, teacher=str(copy))

    with pytest.raises(BadModel, match="lack"):
        run(request, Silent())


@pytest.fixture(scope="module")
def teacher(finished: Path) -> Path:
    """A fine-tuned classifier."""
    return finished / "teacher"


def student_request(teacher: Path, output: Path, recipe: Recipe, data: Data = DATA) -> Request:
    """A run that trains the student alone."""
    request = request_for(teacher, output, recipe)
    return replace(request, model=None, teacher=str(teacher), data=data)


def with_pruning(recipe: Recipe, pattern: Pattern, **settings: object) -> Recipe:
    """The recipe with some settings of its pruning replaced."""
    recipe = replace(recipe, pattern=pattern)
    for name, value in settings.items():
        recipe = changed(recipe, f"student.pruning.{name}", value)
    return recipe


SPD = spd_recipe()
HALF = Unstructured(sparsity=0.5)
RECIPES = {
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


@pytest.fixture(scope="module", params=RECIPES)
def whole(
    request: pytest.FixtureRequest, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Checkpoint]:
    """Each recipe with what it gives when it is never stopped."""
    recipe = RECIPES[request.param]
    output = tmp_path_factory.mktemp("whole") / "run"
    return recipe, run(student_request(teacher, output, recipe), Silent())


def test_every_recipe_resumes_to_the_bit(
    teacher: Path, tmp_path: Path, whole: tuple[Recipe, Checkpoint]
) -> None:
    """Stopped between mask updates, while grafting and in the last stage, the bits are the same."""
    recipe, expected = whole
    total = len([r for r in read_journal(expected.folder / JOURNAL_FILE) if r["kind"] == "step"])
    assert total == 24
    request = student_request(teacher, tmp_path / "parts", recipe)
    for i, steps in enumerate((3, 6, 7)):  # the prune stage has 6 steps, the graft stage 3
        with pytest.raises(Interrupted):
            run(replace(request, resume=i > 0, should_stop=StopAfter(steps)), Silent())

    found = run(replace(request, resume=True), Silent())

    assert found.weights.read_bytes() == expected.weights.read_bytes()
    assert (found.folder / SPD_FILE).read_text() == (expected.folder / SPD_FILE).read_text()
    assert read_journal(found.folder / JOURNAL_FILE) == read_journal(expected.folder / JOURNAL_FILE)
    assert not (found.folder / STATE_FILE).exists() and not (found.folder / BEST_FILE).exists()


def test_every_recipe_keeps_its_pattern(whole: tuple[Recipe, Checkpoint]) -> None:
    """Whatever scores, regrows, solves and spreads: in the end each matrix holds its goal."""
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


@pytest.mark.parametrize("arm", ARMS)
def test_every_built_in_recipe_trains(teacher: Path, tmp_path: Path, arm: str) -> None:
    """Each of them, as it is but for its length, ends with its pattern and its own losses."""
    student = ARMS[arm]().lasting(3)
    recipe = changed(
        replace(QUICK, name=arm, student=student), "student.pruning.calibration_tokens", 64
    )

    found = run(student_request(teacher, tmp_path / "run", recipe), Silent())

    assert set(found.densities.values()) == {0.5}
    first, *_ = read_journal(found.folder / JOURNAL_FILE)
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
    """Excluded matrices have no zeros and sparsity 0 in ``spd.json``; the others meet the goal."""
    recipe = with_pruning(QUICK, HALF, allocation=allocation, exclude=("layer.0", "query"))

    found = run(student_request(teacher, tmp_path / "run", recipe), Silent())

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

    again = run(request_for(model, tmp_path / "again", recipe), Silent())

    for part in (".", "teacher"):
        ours, theirs = tmp_path / "again" / part, finished / part
        assert (ours / WEIGHTS_FILE).read_bytes() == (theirs / WEIGHTS_FILE).read_bytes()
    assert again.to_json() == open_checkpoint(finished).to_json()


@pytest.mark.parametrize("recipe", [QUICK, SPD], ids=["quick", "spd"])
def test_the_best_on_what_was_held_out_is_kept(
    teacher: Path, tmp_path: Path, recipe: Recipe
) -> None:
    """Of the scores after the masks are final, the last of the highest on holdout was chosen."""
    recipe = changed(recipe, "student.learning_rate", 3e-3)

    found = run(student_request(teacher, tmp_path / "run", recipe), Silent())

    records = read_journal(found.folder / JOURNAL_FILE)
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
    request = student_request(teacher, tmp_path / "run", replace(QUICK, holdout=0.0), data)

    run(request, Silent())

    *_, final = records = read_journal(tmp_path / "run" / JOURNAL_FILE)
    assert final["chosen_step"] == 24
    assert not any("holdout" in r for r in records)


def test_what_is_held_out_is_never_trained_on(teacher: Path, tmp_path: Path) -> None:
    """Other rows held out change no step of the training; other dev rows not even the choice."""
    held = Data.of(DATA.train, DATA.dev, dev_name="dev", holdout=examples(20))
    dev = Data.of(DATA.train, {"dev": examples(30)}, dev_name="dev", holdout=DATA.holdout)
    steps, weights = {}, {}
    for name, data in (("usual", DATA), ("held", held), ("dev", dev)):
        found = run(student_request(teacher, tmp_path / name, QUICK, data), Silent())
        records = read_journal(found.folder / JOURNAL_FILE)
        steps[name] = [r for r in records if r["kind"] == "step"]
        weights[name] = found.weights.read_bytes()

    assert steps["held"] == steps["usual"] and steps["dev"] == steps["usual"]
    assert weights["dev"] == weights["usual"]


def test_a_loss_that_is_no_number_names_its_rows(tmp_path: Path) -> None:
    """Step and rows of the batch are in the error, and the state from before it is kept."""
    task = TASKS["stsb"]
    model = tiny_model(tmp_path / "model", task=task, hidden=32, intermediate=64)
    guilty = epoch_batches([5] * 24, batch_size=4, seed=0, epoch=0)[3][1]
    rows = [
        Example(text="a film", pair="a bus", label=math.nan if i == guilty else 1.0)
        for i in range(24)
    ]
    data = Data.of(rows, {"dev": rows[:1]}, dev_name="dev")
    recipe = replace(QUICK, batch_size=4)
    request = replace(request_for(model, tmp_path / "run", recipe), task=task, data=data)
    with pytest.raises(Interrupted):
        run(replace(request, should_stop=StopAfter(2)), Silent())
    state = tmp_path / "run/teacher" / STATE_FILE
    before = state.read_bytes()

    with pytest.raises(Diverged, match=r"the loss at step 3 is not a number") as caught:
        run(replace(request, resume=True), Silent())

    batch = sorted(epoch_batches([5] * 24, batch_size=4, seed=0, epoch=0)[3])
    assert f"rows {', '.join(map(str, batch))} (counted from 0)" in str(caught.value)
    assert str(state) in caught.value.fix
    assert state.read_bytes() == before


def test_too_few_steps_are_refused_before_the_teacher_is_trained(
    model: Path, tmp_path: Path
) -> None:
    """A bound below pruning and grafting leaves no folder; one above it is kept to."""
    request = request_for(model, tmp_path / "run", replace(QUICK, max_steps=17))
    with pytest.raises(BadSetting, match="take 18 steps; got --max-steps 17"):
        run(request, Silent())
    assert not (tmp_path / "run").exists()

    run(replace(request, recipe=replace(QUICK, max_steps=20)), Silent())

    records = read_journal(tmp_path / "run" / JOURNAL_FILE)
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(20))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("task", "trained for another task; got mrpc, this is sst2"),
        ("regression", "does not answer with 2 labels, as sst2 needs; got a number"),
        ("labels", "does not answer with 2 labels, as sst2 needs; got 3 labels"),
        ("sizes", "no fine-tuned form of the model: their sizes differ"),
        ("tokenizer", "another tokenizer than the model"),
        ("embeddings", "is not the teacher's own; got ids up to"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, kind: str, reason: str
) -> None:
    """One of another task, count of labels, size or tokenizer; and nothing is left behind."""
    tasks = {"task": "mrpc", "regression": "stsb", "labels": "mnli"}
    hidden = 48 if kind == "sizes" else 32
    folder = tiny_checkpoint(
        tmp_path / "t", task=tasks.get(kind, "sst2"), hidden=hidden, intermediate=64
    ).folder
    if kind in ("tokenizer", "embeddings"):
        file = folder / "tokenizer.json"
        value = json.loads(file.read_text())
        words = value["model"]["vocab"]
        words["zebra"] = words.pop("plot") if kind == "tokenizer" else len(words)
        file.write_text(json.dumps(value))
    request = replace(request_for(model, tmp_path / "run"), teacher=str(folder))

    with pytest.raises((BadSetting, BadModel), match=reason):
        run(request, Silent())

    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_a_gpu_trains_too(model: Path, tmp_path: Path) -> None:
    """On CUDA a run ends with a checkpoint whose pattern holds."""
    found = run(request_for(model, tmp_path / "run", replace(QUICK, device="cuda")), Silent())

    assert set(found.densities.values()) == {0.5}
