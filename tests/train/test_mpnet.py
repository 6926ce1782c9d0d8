"""MPNet's attention for training: Transformers' logits and gradients, recorded or fused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import WEIGHTS_FILE
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.open import session_from_artefact
from spd_train.config import Recipe
from spd_train.model import load_classifier
from spd_train.recipes import with_fields
from spd_train.run import run
from tests.tiny import tiny_model
from tests.train.latency import latency_table
from tests.train.runs import TASK, batch, config_for, spd_recipe, student_config

TABLE = "mpnet.encoder.relative_attention_bias.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", architecture="mpnet", task=TASK, positions=200)


def gradients(model: PreTrainedModel, *lengths: int) -> dict[str, torch.Tensor]:
    """Logits, and the gradient of each parameter, at rows of these lengths."""
    rows = batch(*lengths, pad_id=1)
    model.train(mode=False)
    model.zero_grad()
    logits_BC = model(**rows.model_inputs(model.config)).logits
    logits_BC.square().sum().backward()
    named = model.named_parameters()
    return {"logits": logits_BC.detach(), **{n: p.grad for n, p in named if p.grad is not None}}


@pytest.mark.parametrize("attention", ["sdpa", "spd_recorded", "eager"])
@pytest.mark.parametrize("lengths", [(9,), (9, 1, 160, 5), (7, 7)])
def test_gradients_are_transformers(folder: Path, attention: str, lengths: tuple[int, ...]) -> None:
    """With and without padding, those of the table of biases included."""
    expected = gradients(AutoModelForSequenceClassification.from_pretrained(folder), *lengths)
    model = load_classifier(str(folder), TASK, trained=True)
    model.config._attn_implementation = attention

    found = gradients(model, *lengths)

    assert found.keys() == expected.keys()
    table = found[TABLE]
    assert table.abs().sum() > 0
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-4, msg=name)


def test_parameters_keep_their_names(folder: Path) -> None:
    """So a checkpoint is Transformers' own."""
    plain = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()

    found = load_classifier(str(folder), TASK, trained=True).state_dict()

    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def recipes() -> dict[str, Recipe]:
    """Every pattern with all that the recipe ``spd`` does, a speed-up, and whole layers."""
    spd = spd_recipe()
    permuted = with_fields(spd, {"student.pruning.permute": True})
    return {
        "unstructured": replace(spd, pattern=Unstructured(sparsity=0.8)),
        "2:4": replace(permuted, pattern=NM(n=2, m=4)),
        "block": replace(permuted, pattern=Block(rows=16, columns=1, sparsity=0.75)),
        "structured": replace(spd, pattern=Structured(sparsity=0.5)),
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

    rows = [(0, 9, 8, 7, 2), (0, 2), (0, *range(5, 60), 2)]
    given = pad([Tokens(ids=row, types=(0,) * len(row)) for row in rows], pad_id=1)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
    with torch.no_grad():
        ids, mask = torch.from_numpy(given.ids_BS), torch.from_numpy(given.mask_BS)
        expected_BC = model(input_ids=ids, attention_mask=mask).logits.numpy()
    with session_from_artefact(artefact) as session:
        np.testing.assert_allclose(session.run(given), expected_BC, rtol=1e-4, atol=1e-4)
    before, after = load_file(folder / WEIGHTS_FILE), load_file(checkpoint.weights)
    assert torch.equal(before[TABLE], after[TABLE])


def test_a_teacher_is_fine_tuned(folder: Path, tmp_path: Path) -> None:
    """The table of biases is trained as every other weight is."""
    checkpoint = run(config_for(folder, tmp_path / "run"), Silent())

    before = load_file(folder / WEIGHTS_FILE)[TABLE]
    teacher = checkpoint.folder / "teacher"
    assert not torch.equal(before, load_file(teacher / WEIGHTS_FILE)[TABLE])
