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
    it multiplies.

    Args:
        network: the network; all students are in place during the passes.
        matrices: the matrices whose inputs are measured.
        calibration: the texts.
    """
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    real: list[Tensor] = []
    tokens = sum(batch.step_tokens for batch in calibration.batches)

    def adding(name: str) -> Callable[[Tensor, Tensor], None]:
        def add(input_BSK: Tensor, _: Tensor) -> None:
            x_TK = input_BSK[real[-1]].float()
            with torch.autocast(x_TK.device.type, enabled=False):
                parts = x_TK.sum(0) / tokens, x_TK.T @ x_TK / tokens
            mean_K, second_KK = sums.get(name, (0, 0))
            sums[name] = mean_K + parts[0], second_KK + parts[1]

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
    found = {name: InputMoments(mean_K=m, second_KK=s) for name, (m, s) in sums.items()}
    return {name: found[reader] for name, reader in own.items()}


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


def _first_reader(matrix: Matrix, matrices: Sequence[Matrix]) -> str:
    """The name of the first of ``matrices`` that reads the same input as ``matrix``."""
    together = next(roles for roles in READ_TOGETHER if matrix.role in roles)
    return next(m.name for m in matrices if m.layer == matrix.layer and m.role in together)
