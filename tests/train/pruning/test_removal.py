"""Heads and neurons removed one at a time: against trying each of them by brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spd_train.pruning.structured.removal import columns_of, removal_curve

sizes = pytest.mark.parametrize(("width", "units"), [(1, 24), (1, 80), (4, 6)])


def problem(units: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight ``[N, K]`` and the covariance of correlated inputs ``[K, K]``."""
    draw = torch.Generator().manual_seed(seed)
    K = units * width
    x_TK = torch.randn(5 * K, K, generator=draw) @ torch.randn(K, K, generator=draw)
    return torch.randn(10, K, generator=draw), x_TK.T @ x_TK / len(x_TK)


def least_error(weight_NK: Tensor, covariance_KK: Tensor, kept: list[int], width: int) -> float:
    """Squared error of the best weight over ``kept`` units, by the normal equations."""
    weight_NK, damped_KK = weight_NK.double(), covariance_KK.double().clone()
    damped_KK.diagonal().add_(0.01 * damped_KK.diagonal().mean())
    columns = columns_of(torch.tensor(kept, dtype=torch.long), width)
    cross_NK = weight_NK @ damped_KK[:, columns]
    solved_NK = torch.linalg.solve(damped_KK[columns][:, columns], cross_NK.T).T
    return float(((weight_NK @ damped_KK) * weight_NK).sum() - (cross_NK * solved_NK).sum())


@sizes
def test_each_unit_removed_is_the_one_that_costs_least(width: int, units: int) -> None:
    """Every choice and every error is that of trying each unit and solving the others again."""
    weight_NK, covariance_KK = problem(units, width)
    curve = removal_curve(weight_NK, covariance_KK, width=width)

    left = list(range(units))
    variance = float(((weight_NK @ covariance_KK) * weight_NK).sum())
    for removed, error in zip(curve.order_R.tolist(), curve.error_U.flip(0)[1:], strict=True):
        tried = {
            u: least_error(weight_NK, covariance_KK, [v for v in left if v != u], width)
            for u in left
        }
        assert removed == min(tried, key=lambda u: tried[u])
        assert float(error) == pytest.approx(tried[removed] / variance, rel=1e-4)
        left.remove(removed)


@given(seed=st.integers(0, 100), width=st.sampled_from([1, 3]), units=st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_errors_rise_from_nothing_to_all(seed: int, width: int, units: int) -> None:
    """With all units the error is 0, with fewer never less, and with none the whole output."""
    curve = removal_curve(*problem(units, width, seed), width=width)

    assert sorted(curve.order_R.tolist()) == list(range(units))
    assert float(curve.error_U[units]) == 0
    assert (curve.error_U.diff() <= 1e-12).all()
    assert float(curve.error_U[0]) == pytest.approx(1, abs=0.03)


def test_of_two_equal_neurons_one_goes_for_nothing() -> None:
    """A neuron that another stands in for costs nothing; the other is then as dear as both."""
    columns = torch.tensor([*range(12), 0])
    twice_NK = problem(12, 1)[0][:, columns]
    curve = removal_curve(twice_NK, torch.eye(12)[columns][:, columns], width=1)

    assert int(curve.order_R[0]) in (0, 12)
    assert float(curve.error_U[12]) < 0.1 * float(curve.error_U[11])


@given(width=st.sampled_from([1, 2]), units=st.sampled_from([5, 70, 130]), share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_curve_that_stops_early_is_the_start_of_the_whole(
    width: int, units: int, share: float
) -> None:
    """Up to the number that is left the order and the errors are the same."""
    least = round(share * units)
    whole = removal_curve(*problem(units, width), width=width)
    part = removal_curve(*problem(units, width), width=width, least=least)

    assert part.order_R.tolist() == whole.order_R[: units - least].tolist()
    torch.testing.assert_close(part.error_U[least:], whole.error_U[least:])
    assert part.error_U[:least].isinf().all()
    assert part.keep(least).equal(whole.keep(least))


def test_what_has_gone_stays_gone() -> None:
    """Units that are no longer alive come first in the order, and cost nothing."""
    weight_NK, covariance_KK = problem(10, 2)
    alive_U = torch.tensor([True, False] * 5)
    curve = removal_curve(weight_NK, covariance_KK, width=2, alive_U=alive_U)

    assert curve.order_R[:5].tolist() == [1, 3, 5, 7, 9]
    assert not curve.error_U[5:].any()
    assert curve.keep(5).equal(alive_U)
    assert curve.keep(0).sum() == 0
