"""Passes over calibration texts, in the modes that they need, and the inputs of each layer.

Activations of the whole network are never stored: one layer at a time runs on the hidden states of
the layer before.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spd_deploy.domain.models.architecture import Role
from spd_train.data.batching import TensorBatch
from spd_train.grafting import GraftedNetwork, hidden_of
from spd_train.pruning.structured.compact import computing_all

Autocast = Callable[[], contextlib.AbstractContextManager[object]]

# Roles that read the same input, so that none of them reads the output of another.
READ_TOGETHER: Sequence[tuple[Role, ...]] = (
    ("query", "key", "value"),
    ("attention_output",),
    ("intermediate", "gate"),
    ("output",),
)


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
        given: what the model passes to its layers besides the hidden states, as arguments and by
            keyword: one for each layer, or one for all.
    """

    student_BSH: Tensor
    teacher_BSH: Tensor
    real_BS: Tensor
    given: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]

    def run(self, layers: Sequence[nn.Module], number: int, hidden_BSH: Tensor) -> Tensor:
        """The output ``[B, S, H]`` of a layer of this number for a hidden state."""
        arguments, keywords = self.given[min(number, len(self.given) - 1)]
        return hidden_of(layers[number](hidden_BSH, *arguments, **keywords))


@contextlib.contextmanager
def evaluation_mode(network: GraftedNetwork) -> Iterator[None]:
    """Like :func:`inference_mode`, and compute every row and column of compact students."""
    with inference_mode(network), computing_all(network):
        yield


@contextlib.contextmanager
def inference_mode(network: GraftedNetwork) -> Iterator[None]:
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
    handle = module.register_forward_hook(lambda _, args, output: see(args[0], hidden_of(output)))
    try:
        yield
    finally:
        handle.remove()


class _Entered(Exception):
    """Ends a forward pass when it has reached the last layer that is asked for."""


def first_layer_inputs(network: GraftedNetwork, calibration: Calibration) -> list[LayerInputs]:
    """The inputs of the first encoder layer, for each calibration batch.

    Where layers attend to different tokens, the pass goes on to see what each of them is given.
    """
    inputs: list[LayerInputs] = []
    entered: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    seen = network.layers if network.encoder.attention else network.layers[:1]

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args, kwargs))
        if layer is seen[-1]:
            raise _Entered

    handles = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in seen]
    try:
        for batch in calibration.batches:
            with calibration.autocast(), contextlib.suppress(_Entered):
                network(batch)
            hidden_BSH = entered[0][0][0]
            given = [(args[1:], keywords) for args, keywords in entered]
            entered.clear()
            inputs.append(
                LayerInputs(
                    student_BSH=hidden_BSH,
                    teacher_BSH=hidden_BSH,
                    real_BS=batch.mask_BS.bool(),
                    given=given,
                )
            )
    finally:
        for handle in handles:
            handle.remove()
    return inputs
