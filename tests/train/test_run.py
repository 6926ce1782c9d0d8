"""Whole runs on a tiny model: what comes out, stopping and resuming, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadModel,
    BadPattern,
    BadSetting,
    Interrupted,
    NotWritten,
    SpdError,
)
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import TASKS
from spd_deploy.sessions.torch import TorchSession
from spd_train.data.examples import Example
from spd_train.data.splits import Data
from spd_train.recipe import Recipe, SpdRecipe, TeacherRecipe
from spd_train.reports.curves import CURVES_FILE
from spd_train.run import RUN_FILE, Request, run
from spd_train.training.journal import JOURNAL_FILE, read_journal
from spd_train.training.state import STATE_FILE
from tests.tiny import WORDS, tiny_model

TASK = TASKS["sst2"]
QUICK = Recipe(
    pattern=NM(n=2, m=4),
    teacher=TeacherRecipe(epochs=2, learning_rate=1e-3),
    spd=SpdRecipe(prune_epochs=2, graft_epochs=1, finetune_epochs=1, learning_rate=5e-4),
    batch_size=8,
    max_tokens=16,
    precision="fp32",
)


def examples(count: int) -> list[Example]:
    """Texts whose label is whether they hold the word 'good'."""
    words = WORDS.split()
    draw = torch.Generator().manual_seed(count)
    found = []
    for i in range(count):
        length = int(torch.randint(3, 9, (1,), generator=draw))
        picked = [
            words[int(torch.randint(len(words), (1,), generator=draw))] for _ in range(length)
        ]
        text = " ".join(w for w in picked if w not in ("good", "bad"))
        found.append(Example(text=f"{text} {'good' if i % 2 else 'bad'}", label=i % 2))
    return found


DATA = Data.of(examples(48), {"dev": examples(16)}, dev_name="dev")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("run") / "model", task=TASK, hidden=32, intermediate=64
    )


def request_for(model: Path, output: Path, recipe: Recipe = QUICK) -> Request:
    return Request(
        task=TASK, data=DATA, recipe=recipe, model=str(model), teacher=None, output=output
    )


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    output = tmp_path_factory.mktemp("finished") / "run"
    run(request_for(model, output), Silent())
    return output


class StopAfter:
    """Says stop when it was asked a number of times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


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
    assert [r["step"] for r in records if r["kind"] == "score"] == [5, 11, 17, 23]


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

    with pytest.raises(BadSetting, match="another seed"):
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
        spd=replace(QUICK.spd, prune_epochs=8, graft_epochs=4, finetune_epochs=8),
    )

    run(request_for(model, tmp_path / "run", recipe), Silent())

    for log in (tmp_path / "run/teacher" / JOURNAL_FILE, tmp_path / "run" / JOURNAL_FILE):
        last = [r for r in read_journal(log) if r["kind"] == "score"][-1]
        assert last["train"]["accuracy"] == 1.0


def test_a_diverged_run_says_so(model: Path, tmp_path: Path) -> None:
    """A loss that is not a number stops the run with advice."""
    recipe = replace(QUICK, teacher=TeacherRecipe(epochs=4, learning_rate=1e30))

    with pytest.raises(BadSetting, match="diverged"):
        run(request_for(model, tmp_path / "run", recipe), Silent())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (lambda: TeacherRecipe(epochs=0), BadSetting),
        (lambda: TeacherRecipe(learning_rate=float("nan")), BadSetting),
        (lambda: SpdRecipe(prune_epochs=0), BadSetting),
        (lambda: SpdRecipe(graft_start=1.5), BadSetting),
        (lambda: SpdRecipe(finetune_epochs=-1), BadSetting),
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


@pytest.mark.gpu
def test_a_gpu_trains_too(model: Path, tmp_path: Path) -> None:
    """On CUDA a run ends with a checkpoint whose pattern holds."""
    found = run(request_for(model, tmp_path / "run", replace(QUICK, device="cuda")), Silent())

    assert set(found.densities.values()) == {0.5}
