"""MPNet's and DeBERTa's attention for training: Transformers' logits and gradients."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
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


@dataclass(frozen=True, kw_only=True)
class Case:
    """An architecture whose attention has a table of positions.

    Attributes:
        architecture: its name in ``tests.tiny``.
        table: the tensor of the table.
        ends: ids of the first and the last token of a row.
        pad_id: id of the padding.
        moves: whether the table's columns go along where the hidden state is permuted.
    """

    architecture: str
    table: str
    ends: tuple[int, int]
    pad_id: int
    moves: bool

    def __str__(self) -> str:
        return self.architecture

    def settled(self, table: Tensor) -> Tensor:
        """What no student's training changes in the table."""
        return table.sort(1).values if self.moves else table


CASES = [
    Case(
        architecture="mpnet",
        table="mpnet.encoder.relative_attention_bias.weight",
        ends=(0, 2),
        pad_id=1,
        moves=False,
    ),
    Case(
        architecture="deberta-v2",
        table="deberta.encoder.rel_embeddings.weight",
        ends=(2, 3),
        pad_id=0,
        moves=True,
    ),
]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def folder(case: Case, tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", architecture=case.architecture, task=TASK, positions=200)


@pytest.mark.parametrize("attention", ["sdpa", "spd_recorded", "eager"])
@pytest.mark.parametrize("lengths", [(9,), (9, 1, 160, 5), (7, 7)])
def test_gradients_are_transformers(
    case: Case, folder: Path, attention: str, lengths: tuple[int, ...]
) -> None:
    """With and without padding, recorded or fused, those of the table of positions included."""
    expected = gradients(AutoModelForSequenceClassification.from_pretrained(folder), *lengths)
    model = load_classifier(str(folder), TASK, trained=True)
    model.config._attn_implementation = attention

    found = gradients(model, *lengths)

    assert found.keys() == expected.keys()
    assert found[case.table].abs().sum() > 0
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-4, msg=name)


def test_parameters_keep_their_names(folder: Path) -> None:
    """So a checkpoint is Transformers' own."""
    plain = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()

    found = load_classifier(str(folder), TASK, trained=True).state_dict()

    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize("name", recipes())
def test_a_student_is_trained_and_exported(
    case: Case, folder: Path, tmp_path: Path, name: str
) -> None:
    """Under every pattern: its checkpoint in Transformers and its artefact give equal logits."""
    checkpoint = trained_student(folder, tmp_path / "run", name)

    first, last = case.ends
    rows = [(first, 9, 8, 7, last), (first, last), (first, *range(5, 60), last)]
    assert_exports_as_in_transformers(checkpoint, tmp_path / "a", rows, pad_id=case.pad_id)
    before, after = (
        case.settled(load_file(file)[case.table])
        for file in (folder / WEIGHTS_FILE, checkpoint.weights)
    )
    assert torch.equal(before, after)


def test_a_teacher_is_fine_tuned(case: Case, folder: Path, tmp_path: Path) -> None:
    """The table of positions is trained as every other weight is."""
    checkpoint = run(config_for(folder, tmp_path / "run"), Silent())

    before = load_file(folder / WEIGHTS_FILE)[case.table]
    teacher = checkpoint.folder / "teacher"
    assert not torch.equal(before, load_file(teacher / WEIGHTS_FILE)[case.table])
