"""Passes over calibration texts: second moments of matrix inputs, and inputs of each layer.

Activations of the whole network are never stored. Moments are summed batch by batch, and one layer
at a time runs on the hidden states of the layer before.
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
    """Texts to calibrate on, and the autocast context of the passes over them."""

    batches: Sequence[TensorBatch]
    autocast: Autocast


@dataclass(slots=True)
class LayerInputs:
    """The inputs of one encoder layer for one calibration batch.

    Attributes:
        student_BSH, teacher_BSH: hidden states before the layer, of student and teacher.
        real_BS: True at real tokens, False at padding.
        arguments, keywords: what the model passes to each of its layers besides the hidden states.
    """

    student_BSH: Tensor
    teacher_BSH: Tensor
    real_BS: Tensor
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def run(self, layer: nn.Module, hidden_BSH: Tensor) -> Tensor:
        """The output ``[B, S, H]`` of ``layer`` for a hidden state."""
        output: Tensor = layer(hidden_BSH, *self.arguments, **self.keywords)
        return output


@contextlib.contextmanager
def evaluation_mode(network: GraftedNetwork) -> Iterator[None]:
    """Switch dropout and gradients off; the mode and the graft are restored at the end."""
    before, training = [u.student_in_place for u in network.units], network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.graft(before)
        network.train(training)


@contextlib.contextmanager
def forward_hook(module: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``see`` with the input and the output of every forward pass of ``module``."""
    handle = module.register_forward_hook(lambda _, args, output: see(args[0], output))
    try:
        yield
    finally:
        handle.remove()


def input_moments(
    network: GraftedNetwork, matrices: Sequence[Matrix], calibration: Calibration
) -> dict[str, Tensor]:
    """Second moments E[x x^T] ``[K, K]`` of the inputs of each student matrix.

    The mean is over all real tokens. Query, key and value of a layer read the same input and share
    one tensor.

    Args:
        network: the network; all students are in place during the passes.
        matrices: the matrices whose inputs are measured.
        calibration: the texts.

    Returns:
        The moments by matrix name.
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
    with evaluation_mode(network), contextlib.ExitStack() as stack:
        network.graft_all(True)
        for name in dict.fromkeys(own.values()):
            stack.enter_context(forward_hook(network.linear(name), adding(name)))
        for batch in calibration.batches:
            real.append(batch.mask_BS.bool())
            with calibration.autocast():
                network(batch)
    return {name: sums[reader] for name, reader in own.items()}


class _Entered(Exception):
    """Ends a forward pass when it has reached the first layer."""


def first_layer_inputs(network: GraftedNetwork, calibration: Calibration) -> list[LayerInputs]:
    """The inputs of the first encoder layer, for each calibration batch."""
    inputs: list[LayerInputs] = []
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
            inputs.append(
                LayerInputs(
                    student_BSH=hidden_BSH,
                    teacher_BSH=hidden_BSH,
                    real_BS=batch.mask_BS.bool(),
                    arguments=tuple(others),
                    keywords=keywords,
                )
            )
    finally:
        handle.remove()
    return inputs


def _first_reader(matrix: Matrix, matrices: Sequence[Matrix]) -> str:
    """The name of the first of ``matrices`` that reads the same input as ``matrix``."""
    together = ("query", "key", "value")
    if matrix.role not in together:
        return matrix.name
    return next(m.name for m in matrices if m.layer == matrix.layer and m.role in together)
