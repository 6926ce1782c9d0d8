"""MPNet's attention for training: Transformers' logits and gradients, recorded or fused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from spd_train.model import load_classifier
from tests.tiny import tiny_model
from tests.train.runs import TASK, batch


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
    table = found["mpnet.encoder.relative_attention_bias.weight"]
    assert table.abs().sum() > 0
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-4, msg=name)


def test_parameters_keep_their_names(folder: Path) -> None:
    """So a checkpoint is Transformers' own."""
    plain = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()

    found = load_classifier(str(folder), TASK, trained=True).state_dict()

    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)
