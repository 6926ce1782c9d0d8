"""What no run is made of is refused with the reason, and what diverges stops."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import CONFIG_FILE, SPD_FILE, WEIGHTS_FILE
from spd_deploy.domain.errors import (
    BadModel,
    BadPattern,
    BadSetting,
    Diverged,
    Interrupted,
    SpdError,
)
from spd_deploy.domain.patterns import Block
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import TASKS
from spd_train.config import GraftRecipe, LossRecipe, StudentRecipe, TeacherRecipe
from spd_train.data.batching import epoch_batches
from spd_train.data.examples import Example
from spd_train.data.splits import Data
from spd_train.prune_recipe import PruneRecipe
from spd_train.run import run
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from spd_train.training.state import STATE_FILE
from tests.tiny import tiny_checkpoint, tiny_model
from tests.train.runs import QUICK, StopAfter, config_for


def test_a_diverged_run_says_so(model: Path, tmp_path: Path) -> None:
    """A loss that is not a number stops the run with advice."""
    recipe = replace(QUICK, teacher=TeacherRecipe(epochs=4, learning_rate=1e30))

    with pytest.raises(Diverged, match="diverged"):
        run(config_for(model, tmp_path / "run", recipe), Silent())


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
        run(config_for(model, tmp_path / "run", recipe), Silent())

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
        case _:
            raise AssertionError(kind)
    return copy


@pytest.mark.parametrize("kind", ["other", "damaged", "pickled", "deeper", "wordless"])
def test_a_model_that_will_not_do_is_refused(model: Path, tmp_path: Path, kind: str) -> None:
    """Another architecture, damaged, pickled or missing weights, no tokenizer: each is named."""
    with pytest.raises(BadModel):
        run(config_for(broken(model, tmp_path, kind), tmp_path / "run"), Silent())

    assert not (tmp_path / "run").exists()


def test_a_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """A path that does not exist is named, and nothing is fetched."""
    with pytest.raises(BadModel, match="no such model folder"):
        run(config_for(tmp_path / "nowhere", tmp_path / "run"), Silent())


def test_a_teacher_without_a_classifier_is_refused(model: Path, tmp_path: Path) -> None:
    """A pretrained encoder alone is no teacher."""
    from transformers import BertModel

    copy = Path(shutil.copytree(model, tmp_path / "encoder"))
    BertModel.from_pretrained(model).save_pretrained(copy)
    config = replace(config_for(model, tmp_path / "run"), model=None, teacher=str(copy))

    with pytest.raises(BadModel, match="lack"):
        run(config, Silent())


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
    config = replace(config_for(model, tmp_path / "run", recipe), task=task, data=data)
    with pytest.raises(Interrupted):
        run(replace(config, should_stop=StopAfter(2)), Silent())
    state = tmp_path / "run/teacher" / STATE_FILE
    before = state.read_bytes()

    with pytest.raises(Diverged, match=r"the loss at step 3 is not a number") as caught:
        run(replace(config, resume=True), Silent())

    batch = sorted(epoch_batches([5] * 24, batch_size=4, seed=0, epoch=0)[3])
    assert f"rows {', '.join(map(str, batch))} (counted from 0)" in str(caught.value)
    assert str(state) in caught.value.fix
    assert state.read_bytes() == before


def test_too_few_steps_are_refused_before_the_teacher_is_trained(
    model: Path, tmp_path: Path
) -> None:
    """A bound below pruning and grafting leaves no folder; one above it is kept to."""
    config = config_for(model, tmp_path / "run", replace(QUICK, max_steps=17))
    with pytest.raises(BadSetting, match="take 18 steps; got --max-steps 17"):
        run(config, Silent())
    assert not (tmp_path / "run").exists()

    run(replace(config, recipe=replace(QUICK, max_steps=20)), Silent())

    records = read_metrics_log(tmp_path / "run" / METRICS_FILE)
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(20))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("task", "trained for another task; got mrpc, this is sst2"),
        ("regression", "does not answer as task sst2 needs: 2 labels, negative, positive; got a"),
        ("labels", "does not answer as task sst2 needs: 2 labels.*; got 3 labels, entailment"),
        ("order", "as task sst2 needs: .*negative, positive; got 2 labels, positive, negative"),
        ("sizes", "not a fine-tuned form of the model: their sizes differ"),
        ("tokenizer", "another tokenizer than the model"),
        ("embeddings", "no embedding for; got 'zebra' has id"),
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
    if kind in ("regression", "labels", "order"):  # a folder that does not name its task
        (folder / SPD_FILE).unlink()
    if kind == "order":
        config = json.loads((folder / CONFIG_FILE).read_text())
        config["id2label"] = {"0": "positive", "1": "negative"}
        (folder / CONFIG_FILE).write_text(json.dumps(config))
    if kind in ("tokenizer", "embeddings"):
        file = folder / "tokenizer.json"
        value = json.loads(file.read_text())
        words = value["model"]["vocab"]
        words["zebra"] = words.pop("plot") if kind == "tokenizer" else len(words)
        file.write_text(json.dumps(value))
    config = replace(config_for(model, tmp_path / "run"), teacher=str(folder))

    with pytest.raises((BadSetting, BadModel), match=reason):
        run(config, Silent())

    assert not (tmp_path / "run").exists()
