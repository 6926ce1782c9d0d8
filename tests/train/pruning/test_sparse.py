"""Weights with masks: what is dropped stays zero, and comes back only where it may."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from spd_train.pruning.masked_weights import MaskedWeights


def made(value: Tensor) -> tuple[MaskedWeights, nn.Parameter]:
    """One matrix."""
    parameter = nn.Parameter(value.clone())
    return MaskedWeights({"w": parameter}), parameter


def update(sparse: MaskedWeights, parameter: nn.Parameter, step: Tensor) -> None:
    """What an optimiser's step and the loop do."""
    with torch.no_grad():
        parameter.add_(step)
    sparse.reapply_masks()


START = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
UPPER = torch.tensor([[False, False, True, True]])


def test_a_dropped_weight_that_grew_comes_back_with_its_value() -> None:
    """With regrowth its movement while it was masked is kept aside and is there when it returns."""
    sparse, parameter = made(START)
    sparse.set_masks({"w": UPPER}, regrow=True)
    for _ in range(3):
        update(sparse, parameter, torch.tensor([[5.0, -0.5, 0.25, 0.0]]))
        assert torch.equal(parameter.detach(), parameter.detach() * UPPER)

    assert torch.equal(sparse.dense()["w"], torch.tensor([[16.0, 0.5, 3.75, 4.0]]))
    sparse.set_masks({"w": torch.tensor([[True, False, False, True]])}, regrow=True)

    assert torch.equal(parameter.detach(), torch.tensor([[16.0, 0.0, 0.0, 4.0]]))
    assert torch.equal(sparse.dense()["w"], torch.tensor([[16.0, 0.5, 3.75, 4.0]]))


def test_without_regrowth_a_dropped_weight_is_gone() -> None:
    """However much the optimiser would move it, it has nothing to return with."""
    sparse, parameter = made(START)
    sparse.set_masks({"w": UPPER}, regrow=False)
    update(sparse, parameter, torch.full((1, 4), 9.0))

    assert torch.equal(sparse.dense()["w"], torch.tensor([[0.0, 0.0, 12.0, 13.0]]))
    sparse.set_masks({"w": torch.ones(1, 4, dtype=torch.bool)}, regrow=False)

    assert torch.equal(parameter.detach(), torch.tensor([[0.0, 0.0, 12.0, 13.0]]))


def test_the_last_masks_forget_what_was_set_aside() -> None:
    """Masks set without regrowth after some with it leave nothing that could return."""
    sparse, parameter = made(START)
    sparse.set_masks({"w": UPPER}, regrow=True)
    update(sparse, parameter, torch.full((1, 4), 9.0))

    sparse.set_masks({"w": UPPER}, regrow=False)
    update(sparse, parameter, torch.full((1, 4), 1.0))

    assert torch.equal(sparse.dense()["w"], torch.tensor([[0.0, 0.0, 13.0, 14.0]]))


@given(
    seed=st.integers(0, 1000),
    updates=st.lists(st.booleans(), min_size=1, max_size=12),
    regrow=st.booleans(),
)
def test_masked_weights_are_zero_after_every_update(
    seed: int, updates: list[bool], regrow: bool
) -> None:
    """Whenever masks change and weights move; and the dense weights follow every movement."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(3, 4, generator=draw)
    sparse, parameter = made(start)
    total = start.clone()
    for new_mask in updates:
        if new_mask:
            mask = torch.rand(3, 4, generator=draw) < 0.5
            sparse.set_masks({"w": mask}, regrow=regrow)
            assert sparse.sparsity == pytest.approx(1 - float(mask.float().mean()))
        step = torch.randn(3, 4, generator=draw)
        total += step
        update(sparse, parameter, step)
        for name, mask in sparse.masks.items():
            assert not sparse.weights[name].detach()[~mask].any()
    if regrow:
        torch.testing.assert_close(sparse.dense()["w"], total)


@pytest.mark.parametrize("regrow", [True, False])
def test_weights_go_on_from_their_state(regrow: bool) -> None:
    """Saved and restored between two updates, they end as if they had never stopped."""
    sparse, parameter = made(START)
    sparse.set_masks({"w": UPPER}, regrow=regrow)
    update(sparse, parameter, torch.full((1, 4), 0.5))
    again, copy = made(parameter.detach())
    again.restore({name: value.clone() for name, value in sparse.state().items()}, "cpu")

    for one, its in ((sparse, parameter), (again, copy)):
        update(one, its, torch.tensor([[7.0, 0.0, -1.0, 1.0]]))

    assert again.sparsity == sparse.sparsity == 0.5
    assert torch.equal(copy, parameter)
    assert torch.equal(again.dense()["w"], sparse.dense()["w"])
