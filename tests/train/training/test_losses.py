"""The terms of the loss against plain formulas, and the laws that splitting a step must keep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spd_deploy.domain.tasks import TASKS, ProblemType, Task, own_task
from spd_train.config import LossRecipe, LossScale
from spd_train.data.batching import TensorBatch, batch_of
from spd_train.grafting import GraftedNetwork
from spd_train.label_loss import LabelLoss
from spd_train.training.losses import (
    HiddenVariance,
    hidden_loss,
    hidden_variance,
    label_loss,
    label_losses,
    logits_loss,
    loss_terms,
)
from tests.tiny import tiny_model
from tests.train.runs import TASK, batch, grafted, rows_of, shaken

ALL = LossRecipe(attention=0.7, hidden=1.3, logits=0.9, label=0.4, temperature=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("losses") / "m", task=TASK, hidden=32, intermediate=64
    )


@pytest.fixture
def network(folder: Path) -> GraftedNetwork:
    return shaken(grafted(folder, unit="sublayer"))


def terms(
    network: GraftedNetwork, rows: TensorBatch, recipe: LossRecipe = ALL
) -> dict[str, Tensor]:
    """The terms with every student in place."""
    return loss_terms(
        network(rows), network.teacher_forward(rows), rows, TASK, recipe, variance(network)
    )


def variance(network: GraftedNetwork) -> HiddenVariance:
    """A unit for the hidden term."""
    return HiddenVariance(by_layer=tuple(0.5 + i for i in range(network.encoder.layers)))


def labelled(*labels: float) -> TensorBatch:
    """A batch of which only the labels and the count of rows matter."""
    count = len(labels)
    ids = torch.ones(count, 3, dtype=torch.int64)
    return TensorBatch(
        ids_BS=ids,
        mask_BS=ids,
        types_BS=ids,
        labels_B=torch.tensor(labels),
        step_rows=count,
        step_tokens=3 * count,
    )


@pytest.mark.parametrize("scale", ["teacher", "plain"])
def test_the_parts_of_a_step_add_up_to_the_whole(network: GraftedNetwork, scale: LossScale) -> None:
    """Terms and gradients of three uneven parts sum to those of the step computed at once."""
    recipe = LossRecipe(attention=0.7, hidden=1.3, logits=0.9, label=0.4, scale=scale)
    rows = rows_of(9, 4, 7, 12, 5, 6)
    students = [p for _, p in network.student_parameters()]

    whole = terms(network, batch_of(rows, pad_id=0, device="cpu"), recipe)
    expected = torch.autograd.grad(sum(whole.values(), torch.zeros(())), students)
    parts = [
        terms(network, batch_of(part, pad_id=0, device="cpu", step=rows), recipe)
        for part in (rows[:1], rows[1:3], rows[3:])
    ]
    total = sum((sum(p.values(), torch.zeros(())) for p in parts), torch.zeros(()))
    found = torch.autograd.grad(total, students)

    for name, value in whole.items():
        torch.testing.assert_close(sum((p[name] for p in parts), torch.zeros(())), value)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_terms_are_weighed_means_over_layers(network: GraftedNetwork) -> None:
    """Each term is its weight times the formula written out for all rows by themselves."""
    rows = batch(9, 4, 7)
    student, teacher = network(rows), network.teacher_forward(rows)
    real = rows.mask_BS.bool()

    found = terms(network, rows)

    attention = torch.stack(
        [
            (s - t).square().sum(-1).mean(1)[real].mean()
            for s, t in zip(student.attention_BASS, teacher.attention_BASS, strict=True)
        ]
    )
    hidden = torch.stack(
        [
            (s - t).square()[real].mean() / unit
            for s, t, unit in zip(
                student.hidden_BSH, teacher.hidden_BSH, variance(network).by_layer, strict=True
            )
        ]
    )
    torch.testing.assert_close(found["attention"], 0.7 * attention.mean())
    torch.testing.assert_close(found["hidden"], 1.3 * hidden.mean())
    cross = torch.nn.functional.cross_entropy(student.logits_BC, rows.labels_B.long())
    torch.testing.assert_close(found["label"], 0.4 * cross)
    assert list(found) == ["attention", "hidden", "logits", "label"]


def test_plain_terms_are_unweighted_sums_over_layers(network: GraftedNetwork) -> None:
    """Under the paper's scale no spread divides, and layers are added."""
    rows = batch(9, 4, 7)
    student, teacher = network(rows), network.teacher_forward(rows)

    found = terms(network, rows, LossRecipe(scale="plain"))

    pairs = zip(student.hidden_BSH, teacher.hidden_BSH, strict=True)
    hidden = torch.stack([hidden_loss(s, t, rows) for s, t in pairs]).sum()
    pairs = zip(student.attention_BASS, teacher.attention_BASS, strict=True)
    means = [
        [
            (s[i, :, :n, :n] - t[i, :, :n, :n]).square().mean((0, 2)).sum()
            for i, n in enumerate((9, 4, 7))
        ]
        for s, t in pairs
    ]
    attention = torch.stack([torch.stack(layer) for layer in means]).sum() / (9 + 4 + 7)
    torch.testing.assert_close(found["hidden"], hidden)
    torch.testing.assert_close(found["attention"], attention)


@pytest.mark.parametrize("name", ["attention", "hidden", "logits", "label"])
def test_a_term_of_no_weight_is_left_out(network: GraftedNetwork, name: str) -> None:
    """One weight above 0 leaves one term; the label's needs no teacher."""
    only: dict[str, Any] = {"attention": 0.0, "hidden": 0.0, "logits": 0.0, "label": 0.0, name: 1.0}
    rows = batch(9, 4)
    teacher = None if name == "label" else network.teacher_forward(rows)

    found = loss_terms(network(rows), teacher, rows, TASK, LossRecipe(**only), variance(network))

    assert list(found) == [name]


def test_a_student_like_its_teacher_has_no_loss(network: GraftedNetwork) -> None:
    """All three losses are 0 where student and teacher agree."""
    rows = batch(9, 4)
    trace = network.teacher_forward(rows)

    found = loss_terms(trace, trace, rows, TASK, LossRecipe(), variance(network))

    assert len(found) == 3
    assert float(torch.stack(list(found.values())).sum()) == pytest.approx(0, abs=1e-6)


def test_padding_changes_no_loss(network: GraftedNetwork) -> None:
    """The losses of a row are the same alone and padded to the length of a longer one."""
    rows = rows_of(5)
    alone = batch_of(rows, pad_id=0, device="cpu")
    wide = torch.nn.functional.pad
    padded = TensorBatch(
        ids_BS=wide(alone.ids_BS, (0, 7)),
        mask_BS=wide(alone.mask_BS, (0, 7)),
        types_BS=wide(alone.types_BS, (0, 7)),
        labels_B=alone.labels_B,
        step_rows=1,
        step_tokens=5,
    )

    found, expected = terms(network, padded), terms(network, alone)

    assert len(found) == 4
    torch.testing.assert_close(found, expected)


def test_the_soft_loss_has_hintons_gradient() -> None:
    """Its gradient is T (softmax(s/T) - softmax(t/T)) over the batch, summed over classes."""
    student = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

    loss = logits_loss(student, teacher, labelled(0, 1), TASK, 2.0)
    loss.backward()  # type: ignore[no-untyped-call]

    expected = 2.0 * ((student / 2).softmax(-1) - (teacher / 2).softmax(-1)) / 2
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


@pytest.mark.parametrize("problem", list(ProblemType))
def test_agreement_is_the_least_of_every_soft_loss(problem: ProblemType) -> None:
    """For each problem type the loss is 0 at the teacher's answer and above it elsewhere."""
    task = Task(name="t", labels=("a", "b"), problem_type=problem, metrics=(), columns=TASK.columns)
    teacher, row = torch.tensor([[0.3, -0.7]]), labelled(0)

    assert float(logits_loss(teacher, teacher, row, task, 1.5)) == pytest.approx(0, abs=1e-7)
    for moved in ([[0.0, 0.5]], [[0.0, -0.5]]):
        assert float(logits_loss(teacher + torch.tensor(moved), teacher, row, task, 1.5)) > 0


def test_a_regression_is_distilled_to_the_teachers_number() -> None:
    """The soft loss of a regression is the squared difference, whatever the label."""
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]])

    found = logits_loss(student, teacher, labelled(5.0, 5.0), TASKS["stsb"], 3.0)

    assert float(found) == (1.0 + 9.0) / 2


def test_the_label_loss_is_torchs() -> None:
    """Cross-entropy for classes, squared error for numbers."""
    logits, rows = torch.tensor([[0.5, 1.5], [2.0, 0.0]]), labelled(1.0, 1.0)

    torch.testing.assert_close(
        label_loss(logits, rows, TASK),
        torch.nn.functional.cross_entropy(logits, rows.labels_B.long()),
    )
    torch.testing.assert_close(
        label_loss(logits[:, :1], rows, TASKS["stsb"]), torch.tensor((0.25 + 1.0) / 2)
    )


def test_several_labels_are_binary_each() -> None:
    """The mean of the binary cross-entropies, as Transformers has it for multi-label."""
    logits = torch.tensor([[0.5, -1.5], [2.0, 0.0]])
    rows = replace(labelled(0.0, 0.0), labels_B=torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

    found = label_loss(logits, rows, replace(TASK, problem_type=ProblemType.MULTI_LABEL))

    torch.testing.assert_close(found, torch.nn.BCEWithLogitsLoss()(logits, rows.labels_B))


def test_soft_labels_are_learned_as_they_are() -> None:
    """The cross-entropy is least where the model answers the probabilities themselves."""
    truth = torch.tensor([[0.3, 0.7]])
    rows = replace(labelled(0.0), labels_B=truth)
    logits = truth.log().requires_grad_()

    (slope,) = torch.autograd.grad(label_loss(logits, rows, TASK), logits)

    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_the_weighed_loss_is_its_formula(gamma: float, several: bool, soft: bool) -> None:
    """Class weights and the focal factor, label by label, in double precision."""
    draw = np.random.default_rng(0)
    logits, weights = draw.normal(size=(4, 3)) * 2, (0.5, 2.0, 1.0)
    truth = draw.dirichlet((1, 1, 1), 4) if soft else np.eye(3)[[0, 2, 1, 1]]
    task = own_task(
        text_column="t",
        pair_column=None,
        label_column="y",
        labels=("a", "b", "c"),
        separator="|" if several else None,
    )
    p = 1 / (1 + np.exp(-logits)) if several else np.exp(logits)
    p = p if several else p / p.sum(1, keepdims=True)
    terms = np.array(weights) * truth * (1 - p) ** gamma * -np.log(p)
    others = (1 - truth) * p**gamma * -np.log(1 - p)
    expected = (terms + others).mean(1) if several else terms.sum(1)

    found = label_losses(
        torch.tensor(logits),
        torch.tensor(truth, dtype=torch.float32)
        if several or soft
        else torch.tensor(truth.argmax(1)),
        task,
        LabelLoss(weights=weights, focal_gamma=gamma),
    )

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_model_that_is_sure_has_a_slope(gamma: float) -> None:
    """Where a probability rounds to 0 or 1 the focal loss still has finite gradients."""
    for kind in (ProblemType.SINGLE_LABEL, ProblemType.MULTI_LABEL):
        logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
        truth = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        found = label_losses(
            logits, truth, replace(TASK, problem_type=kind), LabelLoss(focal_gamma=gamma)
        )

        (slope,) = torch.autograd.grad(found.sum(), logits)

        assert found.isfinite().all() and slope.isfinite().all()


def test_the_spread_is_the_teachers_variance(network: GraftedNetwork) -> None:
    """Over batches of any lengths it is the mean over units of the variance over real tokens."""
    batches = [batch(9, 4), batch(3), batch(12, 5, 6)]
    traces = [(network.teacher_forward(b), b.mask_BS) for b in batches]

    found = hidden_variance(traces)

    for layer, value in enumerate(found.by_layer):
        real_TH = torch.cat([trace.hidden_BSH[layer][mask.bool()] for trace, mask in traces])
        assert value == pytest.approx(float(real_TH.var(0, correction=0).mean()), rel=1e-4)


@pytest.mark.parametrize("empty", [(), (1,), (0,)])
def test_the_layer_before_an_empty_one_is_not_compared(
    network: GraftedNetwork, empty: tuple[int, ...]
) -> None:
    """The hidden term is the mean over the layers that no empty layer follows."""
    rows = batch(3, 5)
    student, teacher = network(rows), network.teacher_forward(rows)
    found = loss_terms(student, teacher, rows, TASK, ALL, variance(network), empty=empty)

    parts = [
        hidden_loss(student.hidden_BSH[i], teacher.hidden_BSH[i], rows)
        / variance(network).by_layer[i]
        for i in range(network.encoder.layers)
        if i + 1 not in empty
    ]
    torch.testing.assert_close(found["hidden"], 1.3 * torch.stack(parts).mean())
