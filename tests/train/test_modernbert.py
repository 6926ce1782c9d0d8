"""ModernBERT taken apart for training: Transformers' logits and gradients, and whole runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, read_config
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.open import session_from_artefact
from spd_train.config import Recipe
from spd_train.model import load_classifier, save_classifier
from spd_train.recipes import with_fields
from spd_train.run import run
from spd_train.stacked import apart, stacked
from tests.tiny import tiny_model
from tests.train.latency import latency_table
from tests.train.runs import TASK, config_for, spd_recipe, student_config
from tests.train.test_mpnet import gradients


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


def recipes() -> dict[str, Recipe]:
    """Every pattern with all that the recipe ``spd`` does, a speed-up, and whole layers."""
    spd = spd_recipe()
    permuted = with_fields(spd, {"student.pruning.permute": True})
    return {
        "unstructured": replace(spd, pattern=Unstructured(sparsity=0.8)),
        "2:4": replace(permuted, pattern=NM(n=2, m=4)),
        "block": replace(permuted, pattern=Block(rows=16, columns=1, sparsity=0.75)),
        "structured": replace(spd, pattern=Structured(sparsity=0.5)),
        "parts": with_fields(
            replace(spd, pattern=Structured(sparsity=0.5)), {"student.graft.unit": "sublayer"}
        ),
        "speedup": replace(spd, pattern=Structured(), speedup=3.0),
        "layers": with_fields(
            replace(spd, pattern=Structured(sparsity=0.5)), {"student.pruning.keep_layers": 1}
        ),
    }


@pytest.mark.parametrize("name", recipes())
def test_a_student_is_trained_and_exported(folder: Path, tmp_path: Path, name: str) -> None:
    """Under every pattern: its checkpoint in Transformers and its artefact give equal logits."""
    config = student_config(folder, tmp_path / "run", recipes()[name])
    if name == "speedup":
        config = replace(config, latency=latency_table())

    checkpoint = run(config, Silent())
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    rows = [(2, 9, 8, 7, 3), (2, 3), (2, *range(5, 60), 3)]
    given = pad([Tokens(ids=row, types=(0,) * len(row)) for row in rows], pad_id=0)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
    with torch.no_grad():
        ids, mask = torch.from_numpy(given.ids_BS), torch.from_numpy(given.mask_BS)
        expected_BC = model(input_ids=ids, attention_mask=mask).logits.numpy()
    with session_from_artefact(artefact) as session:
        np.testing.assert_allclose(session.run(given), expected_BC, rtol=1e-4, atol=1e-4)


def test_a_teacher_is_fine_tuned(folder: Path, tmp_path: Path) -> None:
    """Its stacked matrices are trained as every other weight is."""
    checkpoint = run(config_for(folder, tmp_path / "run"), Silent())

    name = "model.layers.0.attn.Wqkv.weight"
    before = load_file(folder / WEIGHTS_FILE)[name]
    teacher = checkpoint.folder / "teacher"
    assert not torch.equal(before, load_file(teacher / WEIGHTS_FILE)[name])
