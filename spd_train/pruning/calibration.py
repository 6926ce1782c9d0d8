"""What flows through the matrices on calibration texts: second moments of inputs, and targets.

Nothing here keeps activations of the whole network: moments are summed batch by batch, and a layer
at a time is run on hidden states that were kept from the layer before.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Matrix
from spd_train.data.batching import TensorBatch
from spd_train.grafting import GraftedNetwork

Autocast = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Texts to calibrate on, and the number format to run them in."""

    batches: Sequence[TensorBatch]
    autocast: Autocast


@dataclass(slots=True)
class Flow:
    """One calibration batch on its way through the encoder.

    Attributes:
        student_BSH, teacher_BSH: hidden states before the layer that comes next.
        real_BS: which tokens are real.
        arguments, keywords: what else the model hands to each of its layers.
    """

    student_BSH: Tensor
    teacher_BSH: Tensor
    real_BS: Tensor
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def through(self, layer: nn.Module, hidden_BSH: Tensor) -> Tensor:
        """What ``layer`` makes of a hidden state."""
        output: Tensor = layer(hidden_BSH, *self.arguments, **self.keywords)
        return output


@contextlib.contextmanager
def quiet(network: GraftedNetwork) -> Iterator[None]:
    """The network without dropout and gradients; what was in place and its mode come back."""
    before, training = [u.student_in_place for u in network.units], network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.graft(before)
        network.train(training)


@contextlib.contextmanager
def watched(module: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``see`` with input and output of every pass through ``module``."""
    handle = module.register_forward_hook(lambda _, args, output: see(args[0], output))
    try:
        yield
    finally:
        handle.remove()


def input_moments(
    network: GraftedNetwork, matrices: Sequence[Matrix], calibration: Calibration
) -> dict[str, Tensor]:
    """E[x x^T] ``[K, K]`` of the inputs of each student matrix, over all real tokens.

    Query, key and value of a layer read the same input and share one result.
    """
    sums: dict[str, Tensor] = {}
    real: list[Tensor] = []
    tokens = sum(batch.step_tokens for batch in calibration.batches)

    def adding(name: str) -> Callable[[Tensor, Tensor], None]:
        def add(input_BSK: Tensor, _: Tensor) -> None:
            x_TK = input_BSK[real[-1]].float()
            with torch.autocast(x_TK.device.type, enabled=False):
                product_KK = x_TK.T @ x_TK / tokens
            sums[name] = sums[name] + product_KK if name in sums else product_KK

        return add

    own = {m.name: _first_reader(m, matrices) for m in matrices}
    with quiet(network), contextlib.ExitStack() as stack:
        network.graft_all(True)
        for name in dict.fromkeys(own.values()):
            stack.enter_context(watched(network.linear(name), adding(name)))
        for batch in calibration.batches:
            real.append(batch.mask_BS.bool())
            with calibration.autocast():
                network(batch)
    return {name: sums[reader] for name, reader in own.items()}


class _Entered(Exception):
    """Ends a pass at the first layer."""


def flows_of(network: GraftedNetwork, calibration: Calibration) -> list[Flow]:
    """The calibration batches as they enter the first layer."""
    found: list[Flow] = []
    entered: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args, kwargs))
        raise _Entered

    handle = network.layers[0].register_forward_pre_hook(enter, with_kwargs=True)
    try:
        for batch in calibration.batches:
            with calibration.autocast(), contextlib.suppress(_Entered):
                network(batch)
            (hidden_BSH, *others), keywords = entered.pop()
            found.append(
                Flow(
                    student_BSH=hidden_BSH,
                    teacher_BSH=hidden_BSH,
                    real_BS=batch.mask_BS.bool(),
                    arguments=tuple(others),
                    keywords=keywords,
                )
            )
    finally:
        handle.remove()
    return found


def _first_reader(matrix: Matrix, matrices: Sequence[Matrix]) -> str:
    """The first of the matrices that read the same input as ``matrix``."""
    together = ("query", "key", "value")
    if matrix.role not in together:
        return matrix.name
    return next(m.name for m in matrices if m.layer == matrix.layer and m.role in together)
