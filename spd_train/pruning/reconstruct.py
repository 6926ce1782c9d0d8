"""Solve the kept weights again, so that each matrix gives the outputs of the teacher's matrix.

The matrices are solved one after another in the order of the network. With x the inputs of a matrix
in the pruned network, and y the outputs of the teacher's matrix on the teacher's own inputs,

    W' = argmin E|W' x + b' - y|^2 + r |W' - W|^2   over the weights that the mask keeps,

so a matrix also corrects the errors of those before it. If the output is added to a residual, the
error of the residual is part of the target. This is the least-squares step of Optimal Brain
Compression, SparseGPT and ZipLM, for any mask. The released SPD code has no such step.

One solver serves every pattern: conjugate gradients on all rows at once, projected on the mask,
preconditioned by the diagonal, starting from the present weights. Rows and inputs of which the mask
keeps nothing take no part.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.calibration import (
    READ_TOGETHER,
    Autocast,
    Calibration,
    LayerInputs,
    evaluation_mode,
    first_layer_inputs,
    forward_hook,
)
from spd_train.pruning.gram import GramSum

# Weight of the ridge term towards the present weights, as a share of the inputs' mean variance.
RIDGE = 1e-3
_MAX_ITERATIONS = 25
_TOLERANCE = 1e-3
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Centred second moments of a matrix's inputs x and targets y, and the means of both."""

    inputs_KK: Tensor
    cross_NK: Tensor
    input_K: Tensor
    target_N: Tensor


def reconstruct(
    network: GraftedNetwork, masks: Mapping[str, Tensor], calibration: Calibration
) -> None:
    """Solve every masked matrix of the students in place, in the order of the network.

    Args:
        network: students and teachers.
        masks: masks ``[N, K]`` by matrix name.
        calibration: texts to fit the outputs on.
    """
    with evaluation_mode(network):
        flows = first_layer_inputs(network, calibration)
        for i in range(len(network.layers)):
            of_layer = [m for m in network.encoder.matrices() if m.layer == i]
            _solve_layer(network, of_layer, masks, flows, calibration.autocast)


def solve_kept(
    moments: Moments, mask_NK: Tensor, start_NK: Tensor, *, ridge: float = RIDGE
) -> tuple[Tensor, Tensor]:
    """The weight ``[N, K]``, zero off the mask, and the bias ``[N]`` that fit the moments best.

    Each row is a least-squares problem of its own, over the inputs that its mask keeps.

    Args:
        moments: moments of inputs and targets.
        mask_NK: the weights to keep.
        start_NK: where the iteration starts, and what the ridge term pulls towards.
        ridge: weight of the ridge term, as a share of the inputs' mean variance.
    """
    pull = ridge * moments.inputs_KK.diagonal().mean().clamp_min(_TINY)
    rows, columns = mask_NK.any(1).nonzero()[:, 0], mask_NK.any(0).nonzero()[:, 0]
    weight_NK = torch.zeros_like(start_NK)
    weight_NK[rows[:, None], columns] = _solve_by_gradients(
        moments.inputs_KK[columns][:, columns],
        moments.cross_NK[rows][:, columns],
        mask_NK[rows][:, columns].to(start_NK.dtype),
        start_NK[rows][:, columns],
        pull,
    )
    return weight_NK, moments.target_N - weight_NK @ moments.input_K


def _solve_by_gradients(
    inputs_KK: Tensor, cross_NK: Tensor, mask_NK: Tensor, start_NK: Tensor, pull: Tensor
) -> Tensor:
    """The solution for a mask of zeros and ones, by conjugate gradients."""
    scale_K = inputs_KK.diagonal() + pull

    def operator(weight_NK: Tensor) -> Tensor:
        return mask_NK * (weight_NK @ inputs_KK) + pull * weight_NK

    target_NK = mask_NK * (cross_NK + pull * start_NK)
    weight_NK = mask_NK * start_NK
    residual_NK = target_NK - operator(weight_NK)
    preconditioned_NK = residual_NK / scale_K
    direction_NK, product_N1 = preconditioned_NK, _dot(residual_NK, preconditioned_NK)
    enough = _TOLERANCE * target_NK.norm()
    for _ in range(_MAX_ITERATIONS):
        if residual_NK.norm() <= enough:
            break
        applied_NK = operator(direction_NK)
        step_N1 = product_N1 / _dot(direction_NK, applied_NK).clamp_min(_TINY)
        weight_NK = weight_NK + step_N1 * direction_NK
        residual_NK = residual_NK - step_N1 * applied_NK
        preconditioned_NK = residual_NK / scale_K
        before_N1, product_N1 = product_N1, _dot(residual_NK, preconditioned_NK)
        direction_NK = preconditioned_NK + product_N1 / before_N1.clamp_min(_TINY) * direction_NK
    return weight_NK


def moments_of(pairs: Iterator[tuple[Tensor, Tensor]]) -> Moments:
    """The moments of inputs ``[T, K]`` and targets ``[T, N]``, summed over batches of T tokens.

    The sums are of differences to the means of the first batch. Otherwise the variance of inputs
    that hardly vary would be lost in the rounding of their squares.
    """
    tokens = 0
    inputs: GramSum | None = None
    sums: list[Tensor] = []
    for x_TK, y_TN in pairs:
        x_TK, y_TN = x_TK.float(), y_TN.float()
        if inputs is None:
            inputs, near_K, near_N = GramSum(x_TK.shape[1], x_TK.device), x_TK.mean(0), y_TN.mean(0)
        x_TK, y_TN = x_TK - near_K, y_TN - near_N
        tokens += len(x_TK)
        inputs.add(x_TK)
        parts = [y_TN.T @ x_TK, x_TK.sum(0), y_TN.sum(0)]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    assert inputs is not None  # noqa: S101 - there is at least one batch
    inputs_KK = inputs.total() / tokens
    cross_NK, input_K, target_N = (value / tokens for value in sums)
    return Moments(
        inputs_KK=inputs_KK - torch.outer(input_K, input_K),
        cross_NK=cross_NK - torch.outer(target_N, input_K),
        input_K=input_K + near_K,
        target_N=target_N + near_N,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Observed:
    """Inputs and outputs of a layer's modules on the real tokens of one batch, by name.

    Attributes:
        hidden_BSH: the layer's output; None if the pass stopped before it.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    hidden_BSH: Tensor | None


def _solve_layer(
    network: GraftedNetwork,
    of_layer: Sequence[Matrix],
    masks: Mapping[str, Tensor],
    flows: Sequence[LayerInputs],
    autocast: Autocast,
) -> None:
    """Solve the matrices of one layer in order of their inputs, then run the layer.

    The hidden states of student and teacher are those after the layer at the end.
    """
    layer = of_layer[0].layer
    residuals = {m.name: _residual_of(network.encoder, m) for m in of_layer}
    every = dict.fromkeys([m.name for m in of_layer] + [r for r in residuals.values() if r])
    with autocast():
        teachers = [_observe(network, layer, flow, tuple(every), teacher=True) for flow in flows]
    for together in READ_TOGETHER:
        names = [m.name for m in of_layer if m.role in together]
        chosen = [name for name in names if name in masks]
        if not chosen:
            continue
        residual = residuals[names[0]]
        watched = tuple(name for name in (names[0], residual) if name is not None)
        with autocast():
            students = [_observe(network, layer, flow, watched, teacher=False) for flow in flows]
        moments = moments_of(_pairs(students, teachers, names[0], chosen, residual))
        for name, of_name in zip(chosen, _by_target(moments, len(chosen)), strict=True):
            linear = network.linear(name)
            weight_NK, bias_N = solve_kept(of_name, masks[name], linear.weight)
            linear.weight.copy_(weight_NK)
            linear.bias.copy_(bias_N)
    _advance(network, layer, flows, teachers, autocast)


def _residual_of(encoder: Encoder, matrix: Matrix) -> str | None:
    """The module whose input is added to the output of a matrix; None where nothing is added.

    It is the norm before the part of the layer, or the first matrix of the part.
    """
    naming = encoder.naming
    match matrix.role:
        case "attention_output":
            module = naming.attention_norm if naming.norm_first else naming.query
        case "output":
            module = naming.output_norm if naming.norm_first else naming.intermediate
        case "query" | "key" | "value" | "intermediate" | "gate":
            return None
        case never:
            assert_never(never)
    return f"{encoder.prefix}.{matrix.layer}.{module}"


def _pairs(
    students: Sequence[_Observed],
    teachers: Sequence[_Observed],
    reader: str,
    names: Sequence[str],
    residual: str | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs of the student's matrices of these names, and their targets side by side, by batch.

    The inputs are those of ``reader``, which reads the same.
    """
    for student, teacher in zip(students, teachers, strict=True):
        target_TN = torch.cat([teacher.outputs[name].float() for name in names], dim=1)
        if residual is not None:
            target_TN = target_TN + teacher.inputs[residual] - student.inputs[residual]
        yield student.inputs[reader], target_TN


def _by_target(moments: Moments, count: int) -> Iterator[Moments]:
    """The moments of each of ``count`` targets that lie side by side."""
    cross, target = moments.cross_NK.chunk(count), moments.target_N.chunk(count)
    for cross_NK, target_N in zip(cross, target, strict=True):
        yield replace(moments, cross_NK=cross_NK, target_N=target_N)


class _ObservedAll(Exception):
    """Ends a pass through a layer after the last module that is observed."""


def _observe(
    network: GraftedNetwork,
    layer: int,
    flow: LayerInputs,
    names: Sequence[str],
    *,
    teacher: bool,
) -> _Observed:
    """Run one layer of teacher or student on a batch, and record some of its modules.

    The student's pass stops at the last of them, before that is computed: its inputs are needed
    alone. The teacher's pass also gives outputs and hidden states.
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    hidden_BSH = None
    with contextlib.ExitStack() as stack:
        for name in names:

            def enter(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                inputs[name] = args[0][flow.real_BS]
                if not teacher and len(inputs) == len(names):
                    raise _ObservedAll

            def leave(_: Tensor, y_BSN: Tensor, name: str = name) -> None:
                outputs[name] = y_BSN[flow.real_BS]

            module = network.part(name, teacher=teacher)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            if teacher:
                stack.enter_context(forward_hook(module, leave))
        network.graft_all(not teacher)
        with contextlib.suppress(_ObservedAll):
            before_BSH = flow.teacher_BSH if teacher else flow.student_BSH
            hidden_BSH = flow.run(network.layers, layer, before_BSH)
    return _Observed(inputs=inputs, outputs=outputs, hidden_BSH=hidden_BSH)


def _advance(
    network: GraftedNetwork,
    layer: int,
    flows: Sequence[LayerInputs],
    teachers: Sequence[_Observed],
    autocast: Autocast,
) -> None:
    """Replace the hidden states of student and teacher by those after the layer."""
    network.graft_all(True)
    for flow, teacher in zip(flows, teachers, strict=True):
        assert teacher.hidden_BSH is not None  # noqa: S101 - the teacher's passes are whole
        flow.teacher_BSH = teacher.hidden_BSH
        with autocast():
            flow.student_BSH = flow.run(network.layers, layer, flow.student_BSH)


def _dot(a_NK: Tensor, b_NK: Tensor) -> Tensor:
    """Inner products of rows, ``[N, 1]``."""
    return (a_NK * b_NK).sum(1, keepdim=True)
