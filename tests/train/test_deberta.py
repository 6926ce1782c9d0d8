"""DeBERTa's attention for training: Transformers' logits and gradients, recorded or fused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from spd_deploy.domain.checkpoint import WEIGHTS_FILE
from spd_deploy.domain.progress import Silent
from spd_train.model import load_classifier
from spd_train.run import run
from tests.tiny import tiny_model
from tests.train.encoder_training import (
    assert_exports_as_in_transformers,
    gradients,
    recipes,
    trained_student,
)
from tests.train.runs import TASK, config_for

TABLE = "deberta.encoder.rel_embeddings.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", architecture="deberta-v2", task=TASK, positions=200)


@pytest.mark.parametrize("attention", ["sdpa", "spd_recorded", "eager"])
@pytest.mark.parametrize("lengths", [(9,), (9, 1, 160, 5), (7, 7)])
def test_gradients_are_transformers(folder: Path, attention: str, lengths: tuple[int, ...]) -> None:
    """With and without padding, those of the table of positions included."""
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


@pytest.mark.parametrize("name", recipes())
def test_a_student_is_trained_and_exported(folder: Path, tmp_path: Path, name: str) -> None:
    """Under every pattern: its checkpoint in Transformers and its artefact give equal logits."""
    checkpoint = trained_student(folder, tmp_path / "run", name)

    rows = [(2, 9, 8, 7, 3), (2, 3), (2, *range(5, 60), 3)]
    assert_exports_as_in_transformers(checkpoint, tmp_path / "a", rows, pad_id=0)
    before, after = load_file(folder / WEIGHTS_FILE), load_file(checkpoint.weights)
    # Its columns go along where the hidden state is permuted.
    assert torch.equal(before[TABLE].sort(1).values, after[TABLE].sort(1).values)


def test_a_teacher_is_fine_tuned(folder: Path, tmp_path: Path) -> None:
    """The table of positions is trained as every other weight is."""
    checkpoint = run(config_for(folder, tmp_path / "run"), Silent())

    before = load_file(folder / WEIGHTS_FILE)[TABLE]
    teacher = checkpoint.folder / "teacher"
    assert not torch.equal(before, load_file(teacher / WEIGHTS_FILE)[TABLE])
