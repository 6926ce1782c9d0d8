"""The grafted network and its losses, against transformers and against plain formulas."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from spd_deploy.domain.tasks import TASKS, ProblemType, Task
from spd_deploy.domain.text import Tokens
from spd_train.data.batches import LabelledTokens
from spd_train.data.tensors import TensorBatch, batch_of
from spd_train.model import load_classifier
from spd_train.network import GraftedNetwork, draw_graft
from spd_train.recipe import SpdRecipe
from spd_train.training.losses import (
    attention_loss,
    distillation_losses,
    hidden_loss,
    label_loss,
    logits_loss,
)
from tests.tiny import tiny_model

TASK = TASKS["sst2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("network") / "m", task=TASK)


@pytest.fixture
def network(folder: Path) -> GraftedNetwork:
    return GraftedNetwork(load_classifier(str(folder), TASK, trained=True)).eval()


def batch(*lengths: int) -> TensorBatch:
    draw = torch.Generator().manual_seed(0)
    rows = [
        LabelledTokens(
            tokens=Tokens(
                ids=tuple(torch.randint(5, 40, (n,), generator=draw).tolist()), types=(0,) * n
            ),
            label=float(n % 2),
        )
        for n in lengths
    ]
    return batch_of(rows, pad_id=0, device="cpu")


def plain(folder: Path) -> PreTrainedModel:
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    return model.eval()  # type: ignore[no-any-return]


def shaken(network: GraftedNetwork) -> GraftedNetwork:
    """Students that differ from their teachers."""
    with torch.no_grad():
        for _, parameter in network.students():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_no_student_in_place_is_the_teacher_bit_for_bit(
    network: GraftedNetwork, folder: Path
) -> None:
    """At probability 0 the grafted network gives the teacher's logits, even in training mode."""
    rows = batch(9, 4, 7)
    expected = network.teach(rows).logits_BC

    shaken(network).train().graft([False, False])

    assert torch.equal(network(rows).logits_BC, expected)
    theirs = plain(folder)(
        input_ids=rows.ids_BS, attention_mask=rows.mask_BS, token_type_ids=rows.types_BS
    )
    torch.testing.assert_close(expected, theirs.logits)


def test_every_student_in_place_is_the_student(network: GraftedNetwork, folder: Path) -> None:
    """At probability 1 the network gives what a plain model with the student's state gives."""
    shaken(network).graft([True, True])
    rows = batch(9, 4, 7)
    student = plain(folder)
    student.load_state_dict(network.student_state())

    found = network(rows).logits_BC

    theirs = student(
        input_ids=rows.ids_BS, attention_mask=rows.mask_BS, token_type_ids=rows.types_BS
    )
    torch.testing.assert_close(found, theirs.logits)


def test_the_trace_is_what_transformers_computes(network: GraftedNetwork, folder: Path) -> None:
    """Hidden states and attention probabilities are transformers' own, layer by layer."""
    rows = batch(9, 4)

    found = network.teach(rows)

    theirs = plain(folder)(
        input_ids=rows.ids_BS,
        attention_mask=rows.mask_BS,
        token_type_ids=rows.types_BS,
        output_hidden_states=True,
        output_attentions=True,
    )
    torch.testing.assert_close(found.hidden_BSH, theirs.hidden_states[1:])
    torch.testing.assert_close(found.attention_BASS, theirs.attentions)


def test_only_students_are_trained(network: GraftedNetwork) -> None:
    """Gradients reach the students in place and nothing else."""
    network.train().graft([True, False])

    network(batch(5, 5)).logits_BC.sum().backward()

    reached = {name for name, p in network.students() if p.grad is not None}
    assert reached and all(".layer.0." in name for name in reached)
    frozen = [p for n, p in network.named_parameters() if ".student." not in n]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_attention_is_recorded_before_dropout(network: GraftedNetwork) -> None:
    """With dropout on, each recorded row of probabilities still adds up to one."""
    network.train().graft([True, True])

    found = network(batch(9, 9))

    for probability_BASS in found.attention_BASS:
        torch.testing.assert_close(probability_BASS.sum(-1), torch.ones(2, 4, 9))


def test_the_graft_is_drawn_from_seed_and_step() -> None:
    """The same seed and step draw the same layers, and the share is the probability."""
    draws = [draw_graft(12, 0.8, seed=3, step=s) for s in range(500)]

    assert draws == [draw_graft(12, 0.8, seed=3, step=s) for s in range(500)]
    assert sum(map(sum, draws)) / 6000 == pytest.approx(0.8, abs=0.02)
    assert draw_graft(12, 1.0, seed=0, step=0) == [True] * 12
    assert draw_graft(12, 0.0, seed=0, step=0) == [False] * 12


def test_a_student_like_its_teacher_has_no_loss(network: GraftedNetwork) -> None:
    """All three losses are 0 where student and teacher agree."""
    rows = batch(9, 4)
    trace = network.teach(rows)

    found = distillation_losses(trace, trace, rows.mask_BS, TASK, SpdRecipe())

    assert float(found.total) == pytest.approx(0, abs=1e-6)


def test_padding_changes_no_loss(network: GraftedNetwork) -> None:
    """The losses of a row are the same alone and padded beside a longer one."""
    shaken(network).graft([True, True])
    short, both = batch(5), batch(5, 12)
    student, teacher = network(both), network.teach(both)
    mask = both.mask_BS.clone()
    mask[1] = 0  # leave the long row out

    alone = distillation_losses(
        network(short), network.teach(short), short.mask_BS, TASK, SpdRecipe()
    )

    for s, t, row_s, row_t in zip(
        student.hidden_BSH,
        teacher.hidden_BSH,
        network(short).hidden_BSH,
        network.teach(short).hidden_BSH,
        strict=True,
    ):
        torch.testing.assert_close(
            hidden_loss(s, t, mask), hidden_loss(row_s, row_t, short.mask_BS)
        )
    pairs = zip(student.attention_BASS, teacher.attention_BASS, strict=True)
    attention = torch.stack([attention_loss(s, t, mask) for s, t in pairs]).mean()
    torch.testing.assert_close(attention, alone.attention)


def test_the_soft_loss_has_hintons_gradient() -> None:
    """Its gradient is T (softmax(s/T) - softmax(t/T)) over the batch, summed over classes."""
    student = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

    logits_loss(student, teacher, TASK, 2.0).backward()  # type: ignore[no-untyped-call]

    expected = 2.0 * ((student / 2).softmax(-1) - (teacher / 2).softmax(-1)) / 2
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


@pytest.mark.parametrize("problem", list(ProblemType))
def test_agreement_is_the_least_of_every_soft_loss(problem: ProblemType) -> None:
    """For each problem type the loss is 0 at the teacher's answer and above it elsewhere."""
    task = Task(name="t", labels=("a", "b"), problem_type=problem, metrics=(), columns=TASK.columns)
    teacher = torch.tensor([[0.3, -0.7]])

    assert float(logits_loss(teacher, teacher, task, 1.5)) == pytest.approx(0, abs=1e-7)
    assert float(logits_loss(teacher + torch.tensor([[0.0, 0.5]]), teacher, task, 1.5)) > 0


def test_the_label_loss_is_torchs() -> None:
    """Cross-entropy for classes, squared error for numbers."""
    logits, labels = torch.tensor([[0.5, 1.5], [2.0, 0.0]]), torch.tensor([1.0, 1.0])

    torch.testing.assert_close(
        label_loss(logits, labels, TASK), torch.nn.functional.cross_entropy(logits, labels.long())
    )
    torch.testing.assert_close(
        label_loss(logits[:, :1], labels, TASKS["stsb"]), torch.tensor((0.25 + 1.0) / 2)
    )
