"""Compact students: they compute what masked matrices compute, from less."""

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from spd_deploy.domain.patterns import Structured
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import evaluation_mode
from spd_train.pruning.masks import apply_masks
from spd_train.pruning.structured.compact import CompactStudents
from tests.tiny import tiny_model
from tests.train.runs import batch, grafted, shaken

BATCH = batch(3, 7, 12)


@pytest.fixture(params=["bert", "distilbert", "roberta", "mpnet", "modernbert", "deberta-v2"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> GraftedNetwork:
    """A network whose students differ from their teachers."""
    return shaken(grafted(tiny_model(tmp_path / "m", architecture=request.param)))


def masks(network: GraftedNetwork, *, heads: int, neurons: int) -> dict[str, Tensor]:
    """Masks of the first heads and neurons of each layer, by matrix name."""
    encoder = network.encoder
    found = {}
    for group in encoder.coupled():
        kept = heads if group[-1].role == "attention_output" else neurons
        for matrix in group:
            pattern = encoder.pattern_on(matrix, Structured())
            assert isinstance(pattern, Structured)
            units = matrix.shape[pattern.axis] // pattern.width
            found[matrix.name] = pattern.spread(torch.arange(units) < kept, matrix.shape)
    return found


def students(network: GraftedNetwork) -> dict[str, nn.Parameter]:
    """The students' prunable weights by matrix name."""
    return {
        m.name: cast("nn.Parameter", network.linear(m.name).weight)
        for m in network.encoder.matrices()
    }


sizes = pytest.mark.parametrize(("heads", "neurons"), [(3, 50), (1, 1), (0, 20), (2, 0), (0, 0)])


@sizes
def test_logits_and_gradients_are_those_of_masked_matrices(
    network: GraftedNetwork, heads: int, neurons: int
) -> None:
    """Logits are equal, and so is every gradient of a weight that is kept."""
    kept = masks(network, heads=heads, neurons=neurons)
    apply_masks(students(network), kept)
    expected_BC = network(BATCH).logits_BC
    expected_BC.square().sum().backward()
    expected = {name: w.grad.clone() for name, w in students(network).items() if w.grad is not None}
    network.zero_grad()

    CompactStudents(network).set_masks(kept)
    logits_BC = network(BATCH).logits_BC
    logits_BC.square().sum().backward()

    torch.testing.assert_close(logits_BC, expected_BC, atol=1e-5, rtol=1e-4)
    for name, weight in students(network).items():
        assert weight.grad is not None
        torch.testing.assert_close(
            weight.grad * kept[name], expected[name] * kept[name], atol=1e-4, rtol=1e-3
        )


def test_what_is_left_alone_is_computed(network: GraftedNetwork) -> None:
    """The outputs of the compact layers are as wide as what is kept; in evaluation mode, whole."""
    CompactStudents(network).set_masks(masks(network, heads=2, neurons=20))
    first = next(m for m in network.encoder.matrices() if m.role == "intermediate")
    widths = []
    network.linear(first.name).register_forward_hook(lambda _, __, y: widths.append(y.shape[-1]))
    network(BATCH)
    with evaluation_mode(network):
        network.graft_all(True)
        network(BATCH)

    assert widths == [20, 128]


def test_the_state_is_that_of_a_plain_model(network: GraftedNetwork) -> None:
    """Names, shapes and values of the student's state do not change."""
    before = {name: value.clone() for name, value in network.student_state().items()}
    CompactStudents(network).set_masks(masks(network, heads=2, neurons=20))
    after = network.student_state()

    assert before.keys() == after.keys()
    assert all(after[name].equal(value) for name, value in before.items())
