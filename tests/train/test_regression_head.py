"""The head of a regression begins with the scale of its labels, and only where it was drawn."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from spd_train.model import encoder_sizes
from spd_train.regression_head import start_at_labels
from tests.tiny import tiny_checkpoint

IDS = torch.arange(5, 29).reshape(4, 6)


def answers(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.train(mode=False)(input_ids=IDS).logits[:, 0]
    return found


@pytest.mark.parametrize("labels", [[1.0, 2.0, 5.0, 4.0], [100.0, 500.0, 300.0], [7.0, 7.0]])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_a_drawn_head_answers_in_the_unit_of_the_labels(
    tmp_path: Path, architecture: str, labels: list[float]
) -> None:
    """Its answers are those before, times the deviation of the labels, around their mean."""
    folder = tiny_checkpoint(tmp_path / "c", task="stsb", architecture=architecture).folder
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    encoder = encoder_sizes(model)
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.bias)
    before = answers(model)

    start_at_labels(model, encoder, labels)

    numbers = torch.tensor(labels, dtype=torch.float64)
    spread = float(numbers.std(correction=0)) or 1.0
    expected = before * spread + float(numbers.mean())
    assert answers(model) == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)

    trained = answers(model)
    start_at_labels(model, encoder, [0.0, 1.0])
    assert torch.equal(answers(model), trained)
