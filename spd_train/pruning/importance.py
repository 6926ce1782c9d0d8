"""How much a weight matters: scores that masks are chosen by, all ``[N, K]`` by matrix name.

    magnitude      w^2                     the paper's (its order is that of |w|)
    movement       -sum of w dL/dw         Sanh et al. 2020: what moves away from zero stays
    taylor         sum of (w dL/dw)^2      first order: Molchanov et al. 2019
    activation     w^2 E[x_k^2]            Sun et al. 2023 (Wanda), squared: sums are energies
    second-order   w^2 / [H^-1]_kk         H = E[x x^T]: Hassibi and Stork 1993, and OBC, oBERT

The score of a block or slice is the sum over its weights (``domain.patterns``). Of ``second-order``
that is an approximation: inputs of one block could partly replace each other, which a sum neglects.
``movement`` and ``taylor`` need gradients: before the first steps, ``magnitude`` is used instead.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spd_train.prune_recipe import FROM_GRADIENTS, Importance

# Added to the diagonal of H, as a share of its mean, so that constant inputs have an inverse.
_DAMPING = 0.01


def needs_gradients(importance: Importance) -> bool:
    """Whether the scores are sums over the gradients of training steps."""
    return importance in FROM_GRADIENTS


def needs_inputs(importance: Importance) -> bool:
    """Whether the scores need the second moments of each matrix's inputs."""
    return importance in ("activation", "second-order")


def magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w^2 ``[N, K]`` by matrix name. Sums over blocks of squares are squared norms."""
    return {name: weight.detach().float().square() for name, weight in weights.items()}


def activation_scores(weight_NK: Tensor, second_KK: Tensor) -> Tensor:
    """w^2 E[x_k^2] ``[N, K]`` (Sun et al. 2023, squared): the energy in the output.

    Args:
        weight_NK: weight of the matrix.
        second_KK: second moments of its inputs.
    """
    return weight_NK.float().square() * second_KK.diagonal()


def second_order_scores(weight_NK: Tensor, inverse_K: Tensor) -> Tensor:
    """w^2 / [H^-1]_kk ``[N, K]``: rise of the squared output error without the weight.

    The other weights of the row are assumed to be solved again (Hassibi and Stork 1993).

    Args:
        weight_NK: weight of the matrix.
        inverse_K: the diagonal of H^-1 (:func:`inverse_diagonal`).
    """
    return weight_NK.float().square() / inverse_K


def inverse_diagonal(second_KK: Tensor) -> Tensor:
    """The diagonal ``[K]`` of the inverse of a damped second-moment matrix, in fp32."""
    wide_KK = second_KK.to(torch.double, copy=True)
    damping = _DAMPING * wide_KK.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    wide_KK.diagonal().add_(damping)
    return torch.cholesky_inverse(torch.linalg.cholesky(wide_KK)).diagonal().float()


class GradientScores:
    """Sums ``movement`` or ``taylor`` scores over the steps between two mask updates."""

    def __init__(self, importance: Importance) -> None:
        self.importance = importance
        self._sums: dict[str, Tensor] = {}

    def add(self, parameters: Mapping[str, nn.Parameter], dense: Mapping[str, Tensor]) -> None:
        """Add one step's gradients; a parameter without a gradient adds nothing.

        Args:
            parameters: the parameters with their gradients, by matrix name.
            dense: their values without masks, by matrix name: the gradient of a masked weight says
                whether it should come back.
        """
        for name, weight in dense.items():
            gradient = parameters[name].grad
            if gradient is not None:
                product = (weight * gradient).float()
                term = -product if self.importance == "movement" else product.square()
                self._sums[name] = self._sums.get(name, torch.zeros_like(term)) + term

    def scores(self, dense: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums so far, which are then reset. Without any sum the magnitudes stand in."""
        sums = {n: self._sums.get(n, None) for n in dense}
        self._sums = {}
        if any(value is None for value in sums.values()):
            return magnitudes(dense)
        return {name: value for name, value in sums.items() if value is not None}

    def state(self) -> dict[str, Tensor]:
        """The sums by matrix name, for the saved state."""
        return dict(self._sums)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the sums that :meth:`state` returned."""
        self._sums = dict(state)
