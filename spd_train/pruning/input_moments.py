"""First and second moments of what the students' matrices read on calibration texts.

Activations are never stored. The moments are summed batch by batch.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Matrix
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import (
    READ_TOGETHER,
    Calibration,
    forward_hook,
    inference_mode,
)
from spd_train.pruning.gram import GramSum
from spd_train.student_linear import computed_columns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InputMoments:
    """First and second moments of the inputs of a matrix over all real tokens.

    Attributes:
        mean_K: E[x].
        second_KK: E[x x^T].
    """

    mean_K: Tensor
    second_KK: Tensor

    @property
    def covariance_KK(self) -> Tensor:
        """E[x x^T] - E[x] E[x]^T."""
        return self.second_KK - torch.outer(self.mean_K, self.mean_K)


def input_moments(
    network: GraftedNetwork, matrices: Sequence[Matrix], calibration: Calibration
) -> dict[str, InputMoments]:
    """The moments of the inputs of each student matrix, by matrix name.

    Query, key and value of a layer read the same input and share one value; so do a gate and what
    it multiplies. Inputs that compact students do not compute have moments of 0.

    Args:
        network: the network; all students are in place during the passes.
        matrices: the matrices whose inputs are measured.
        calibration: the texts.
    """
    real: list[Tensor] = []
    tokens = sum(batch.step_tokens for batch in calibration.batches)
    own = {m.name: _first_reader(m, matrices) for m in matrices}
    sums = {name: _MomentSum(network.linear(name)) for name in dict.fromkeys(own.values())}

    def adding(total: "_MomentSum") -> Callable[[Tensor, Tensor], None]:
        return lambda input_BSK, _: total.add(input_BSK[real[-1]], tokens)

    with inference_mode(network), contextlib.ExitStack() as stack:
        network.graft_all(True)
        for name, total in sums.items():
            stack.enter_context(forward_hook(network.linear(name), adding(total)))
        for batch in calibration.batches:
            real.append(batch.mask_BS.bool())
            with calibration.autocast():
                network(batch)
    found = {name: total.moments() for name, total in sums.items()}
    return {name: found[reader] for name, reader in own.items()}


class _MomentSum:
    """Sums the moments of a linear layer's inputs over batches."""

    def __init__(self, linear: nn.Linear) -> None:
        """Start from zero, for the inputs that the layer reads."""
        device = linear.weight.device
        self.columns = computed_columns(linear)
        self.width = linear.in_features
        size = self.width if self.columns is None else len(self.columns)
        self.mean_C = torch.zeros(size, device=device)
        self.second_CC = GramSum(size, device)

    def add(self, x_TC: Tensor, tokens: int) -> None:
        """Add a batch of the inputs, of ``tokens`` in all."""
        with torch.autocast(x_TC.device.type, enabled=False):
            x_TC = x_TC.float()
            self.mean_C += x_TC.sum(0) / tokens
            self.second_CC.add(x_TC, weight=1 / tokens)

    def moments(self) -> InputMoments:
        """The moments of all inputs."""
        mean_C, second_CC = self.mean_C, self.second_CC.total()
        if self.columns is None:
            return InputMoments(mean_K=mean_C, second_KK=second_CC)
        mean_K = mean_C.new_zeros(self.width)
        mean_K[self.columns] = mean_C
        second_KK = mean_C.new_zeros(self.width, self.width)
        second_KK[self.columns[:, None], self.columns] = second_CC
        return InputMoments(mean_K=mean_K, second_KK=second_KK)


def _first_reader(matrix: Matrix, matrices: Sequence[Matrix]) -> str:
    """The name of the first of ``matrices`` that reads the same input as ``matrix``."""
    together = next(roles for roles in READ_TOGETHER if matrix.role in roles)
    return next(m.name for m in matrices if m.layer == matrix.layer and m.role in together)
