"""Scores of weights against their definitions, and gradient scores against sums by hand."""

import pytest
import torch
from torch import Tensor, nn

from spd_train.prune_recipe import Importance
from spd_train.pruning.importance import (
    GradientScores,
    activation_scores,
    inverse_diagonal,
    magnitudes,
    needs_gradients,
    needs_inputs,
    second_order_scores,
)


def inputs(tokens: int, K: int, seed: int = 0) -> Tensor:
    """Inputs that are correlated, as those of a network are."""
    draw = torch.Generator().manual_seed(seed)
    mix_KK = torch.randn(K, K, generator=draw) / K**0.5 + torch.eye(K)
    x_TK: Tensor = torch.randn(tokens, K, generator=draw) @ mix_KK + 0.3
    return x_TK.double()


def second_moments(x_TK: Tensor) -> Tensor:
    """E[x x^T]."""
    return x_TK.T @ x_TK / len(x_TK)


def damped(second_KK: Tensor) -> Tensor:
    """What the inverse is taken of: a hundredth of the mean of the diagonal is added to it."""
    K = len(second_KK)
    damping = 0.01 * float(second_KK.diagonal().mean())
    return second_KK + damping * torch.eye(K, dtype=torch.double)


@pytest.mark.parametrize("seed", range(3))
def test_second_order_is_what_removing_a_weight_costs(seed: int) -> None:
    """It is the rise of the squared error after the row's other weights were solved anew."""
    N, K = 3, 6
    second_KK = second_moments(inputs(50, K, seed))
    weight_NK = torch.randn(N, K, generator=torch.Generator().manual_seed(seed)).double()
    hessian_KK = damped(second_KK)

    found_NK = second_order_scores(weight_NK, inverse_diagonal(second_KK))

    for n in range(N):
        for k in range(K):
            others = [i for i in range(K) if i != k]
            # min over v with v_k = 0 of (v - w)^T H (v - w), by exact least squares
            inner = hessian_KK[others][:, others]
            solved = torch.linalg.solve(inner, hessian_KK[others] @ weight_NK[n])
            v_K = torch.zeros(K).double()
            v_K[others] = solved
            off_K = v_K - weight_NK[n]
            rise = float(off_K @ hessian_KK @ off_K)
            assert float(found_NK[n, k]) == pytest.approx(rise, rel=1e-4)


def test_inputs_that_never_vary_have_a_score() -> None:
    """Damping gives a dead input a score; without any input no weight counts."""
    x_TK = inputs(50, 5)
    x_TK[:, 2] = 0.0

    found_NK = second_order_scores(torch.ones(3, 5), inverse_diagonal(second_moments(x_TK)))

    assert torch.isfinite(found_NK).all()
    assert not second_order_scores(torch.ones(3, 4), inverse_diagonal(torch.zeros(4, 4))).any()


def test_activation_is_the_energy_that_a_weight_puts_out() -> None:
    """The score is the mean square of weight times input."""
    x_TK = inputs(50, 4)
    weight_NK = torch.randn(3, 4)

    found_NK = activation_scores(weight_NK, second_moments(x_TK))

    energy_NK = (x_TK[:, None, :] * weight_NK).square().mean(0)
    torch.testing.assert_close(found_NK, energy_NK, check_dtype=False)


def test_magnitude_is_the_square() -> None:
    """The order of the squares is that of the magnitudes."""
    weight_NK = torch.randn(4, 6)

    found_NK = magnitudes({"w": weight_NK})["w"]

    assert torch.equal(found_NK, weight_NK**2)
    assert torch.equal(found_NK.flatten().argsort(), weight_NK.abs().flatten().argsort())


def with_gradients(*gradients: Tensor | None) -> dict[str, nn.Parameter]:
    """Parameters that have these gradients."""
    found = {}
    for i, gradient in enumerate(gradients):
        parameter = nn.Parameter(torch.ones(2, 3))
        parameter.grad = gradient
        found[f"w{i}"] = parameter
    return found


@pytest.mark.parametrize("importance", ["movement", "taylor"])
def test_gradient_scores_add_up_and_are_forgotten(importance: Importance) -> None:
    """They are sums over steps of the dense weight times its gradient, then begin anew."""
    scores = GradientScores(importance)
    dense = {"w0": torch.randn(2, 3)}
    first, second = torch.randn(2, 3), torch.randn(2, 3)

    scores.add(with_gradients(first), dense)
    scores.add(with_gradients(second), dense)
    found = scores.scores(dense)["w0"]

    products = [dense["w0"] * first, dense["w0"] * second]
    expected = (
        -(products[0] + products[1])
        if importance == "movement"
        else products[0] ** 2 + products[1] ** 2
    )
    torch.testing.assert_close(found, expected)
    assert torch.equal(scores.scores(dense)["w0"], dense["w0"] ** 2)  # all is forgotten


def test_a_part_not_in_place_adds_nothing() -> None:
    """A step without a gradient leaves the sum as it was, and the other's sum grows."""
    scores = GradientScores("taylor")
    dense = {"w0": torch.ones(2, 3), "w1": torch.ones(2, 3)}
    scores.add(with_gradients(torch.ones(2, 3), torch.ones(2, 3)), dense)

    scores.add(with_gradients(None, torch.ones(2, 3)), dense)

    found = scores.scores(dense)
    assert torch.equal(found["w0"], torch.ones(2, 3))
    assert torch.equal(found["w1"], 2 * torch.ones(2, 3))


def test_gradient_scores_go_on_from_their_state() -> None:
    """Saved and restored in the middle, the sums are those of one that was not."""
    dense = {"w0": torch.randn(2, 3)}
    gradients = [torch.randn(2, 3) for _ in range(4)]
    whole, first, second = (GradientScores("movement") for _ in range(3))
    for g in gradients:
        whole.add(with_gradients(g), dense)
    for g in gradients[:2]:
        first.add(with_gradients(g), dense)

    second.restore({name: value.clone() for name, value in first.state().items()})
    for g in gradients[2:]:
        second.add(with_gradients(g), dense)

    assert torch.equal(second.scores(dense)["w0"], whole.scores(dense)["w0"])


def test_each_importance_says_what_it_needs() -> None:
    """Gradients for the first-order ones, inputs for those that look at activations."""
    needs: dict[Importance, tuple[bool, bool]] = {
        "magnitude": (False, False),
        "movement": (True, False),
        "taylor": (True, False),
        "activation": (False, True),
        "second-order": (False, True),
    }
    for importance, expected in needs.items():
        assert (needs_gradients(importance), needs_inputs(importance)) == expected
