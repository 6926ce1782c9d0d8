"""ModernBERT taken apart for training: Transformers' logits and gradients, and whole runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from spd_deploy.domain.checkpoint import WEIGHTS_FILE, read_config
from spd_deploy.domain.progress import Silent
from spd_train.model import load_classifier, save_classifier
from spd_train.run import run
from spd_train.stacked import apart, stacked
from tests.tiny import tiny_model
from tests.train.encoder_training import (
    assert_exports_as_in_transformers,
    gradients,
    recipes,
    trained_student,
)
from tests.train.runs import TASK, config_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", architecture="modernbert", task=TASK, positions=200)


@pytest.mark.parametrize("attention", ["sdpa", "spd_recorded", "eager"])
@pytest.mark.parametrize("lengths", [(9,), (9, 1, 160, 5), (7, 7)])
def test_gradients_are_transformers(folder: Path, attention: str, lengths: tuple[int, ...]) -> None:
    """With and without padding, and in texts that are longer than the window."""
    expected = gradients(AutoModelForSequenceClassification.from_pretrained(folder), *lengths)
    model = load_classifier(str(folder), TASK, trained=True)
    model.config._attn_implementation = attention

    found = gradients(model, *lengths)

    together = apart(expected, "modernbert")
    assert together.keys() <= found.keys()
    for name, wanted in together.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-4, msg=name)


def test_a_saved_model_is_transformers_own(folder: Path, tmp_path: Path) -> None:
    """Its matrices are stacked again, with biases of 0 that its ``config.json`` tells of."""
    model = load_classifier(str(folder), TASK, trained=True)
    save_classifier(model.config, model.state_dict(), tmp_path / "saved")

    before, after = (load_file(f / WEIGHTS_FILE) for f in (folder, tmp_path / "saved"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(not after[name].any() for name in after.keys() - before.keys())
    assert read_config(tmp_path / "saved")["attention_bias"]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").state_dict()
    assert again.keys() == after.keys()


def test_what_is_taken_apart_is_stacked_as_it_was(folder: Path) -> None:
    """The two are inverses, for weights and biases."""
    state = load_file(folder / WEIGHTS_FILE)

    again = stacked(apart(state, "modernbert"), "modernbert")

    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("name", recipes())
def test_a_student_is_trained_and_exported(folder: Path, tmp_path: Path, name: str) -> None:
    """Under every pattern: its checkpoint in Transformers and its artefact give equal logits."""
    checkpoint = trained_student(folder, tmp_path / "run", name)

    rows = [(2, 9, 8, 7, 3), (2, 3), (2, *range(5, 60), 3)]
    assert_exports_as_in_transformers(checkpoint, tmp_path / "a", rows, pad_id=0)


def test_a_teacher_is_fine_tuned(folder: Path, tmp_path: Path) -> None:
    """Its stacked matrices are trained as every other weight is."""
    checkpoint = run(config_for(folder, tmp_path / "run"), Silent())

    name = "model.layers.0.attn.Wqkv.weight"
    before = load_file(folder / WEIGHTS_FILE)[name]
    teacher = checkpoint.folder / "teacher"
    assert not torch.equal(before, load_file(teacher / WEIGHTS_FILE)[name])
