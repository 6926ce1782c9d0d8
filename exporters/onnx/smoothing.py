"""SmoothQuant: channels of activations that dwarf the others are divided, weights multiplied.

In int8 the values of a tensor share one step, and a few channels of an encoder's activations are a
hundred times larger than the rest. A factor for each channel k moves a part of its size into the
weight: ``y = (x / s) (s W)`` with ``s_k = max|x_k|^a / max|W_k|^(1-a)`` and a = 0.5 (Xiao et al.
2023, "SmoothQuant", equation 4). Two things differ here. Weights are taken as shares of the largest
of their row, since each row has a scale of its own. Factors are powers of two, so the weights stay
the checkpoint's bit for bit but for the exponent, and in fp32 no logit changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.lowering import Lowering
from exporters.onnx.graph import Name
from exporters.onnx.observe import kept_columns, observed_inputs
from spd_deploy.domain.text import Batch

_ALPHA = 0.5
# Factors beyond this and its inverse serve nobody: sizes of activations and weights lie within.
_LARGEST = 2.0**20


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothedWeights:
    """The weights of a classifier with their columns multiplied.

    Attributes:
        weights: the tensors, with those of the encoder's matrices multiplied.
        choices: the same lowerings as before, of the multiplied matrices.
        factors: what each column that remains in a lowering was multiplied by, by matrix.
    """

    weights: ClassifierWeights
    choices: Mapping[str, LoweringChoice]
    factors: Mapping[str, Array]


def smooth(
    weights: ClassifierWeights, choices: Mapping[str, LoweringChoice], batches: Sequence[Batch]
) -> SmoothedWeights:
    """Multiply the columns of each matrix by the factors of its inputs on the texts of a task.

    Raises:
        BadData: there are no batches.
    """
    lowerings = {name: choice.lowering for name, choice in choices.items()}
    factors: dict[str, Array] = {}
    for matrices, size_K in _input_sizes(weights, choices, batches):
        columns = [kept_columns(lowerings[name], weights.weight(name)) for name in matrices]
        factors |= dict.fromkeys(matrices, smoothing_factors(size_K, columns))
    multiplied = {
        f"{name}.weight": weights.weight(name) * _spread(lowerings[name], factor_K)
        for name, factor_K in factors.items()
    }
    return SmoothedWeights(
        weights=replace(weights, tensors={**weights.tensors, **multiplied}),
        choices={
            name: replace(choice, lowering=choice.lowering.with_inputs_scaled(factors[name]))
            if name in factors
            else choice
            for name, choice in choices.items()
        },
        factors=factors,
    )


def smoothing_factors(size_K: Array, weights_NK: Iterable[Array]) -> Array:
    """The factors of K channels, powers of two.

    A channel of zeros keeps its size. One that no weight reads becomes so small that it takes no
    part of the range.

    Args:
        size_K: the largest magnitude of each channel.
        weights_NK: the matrices that read the channels.
    """
    weight_K = np.max(
        [_shares_of_rows(weight_NK).max(0, initial=0.0) for weight_NK in weights_NK], axis=0
    )
    filled, read = size_K > 0, weight_K > 0
    ratio_K = np.where(filled, size_K, 1.0) ** _ALPHA / np.where(read, weight_K, 1.0) ** (
        1 - _ALPHA
    )
    factor_K = np.exp2(np.rint(np.log2(np.clip(ratio_K, 1 / _LARGEST, _LARGEST))))
    return np.select([~filled, ~read], [1.0, _LARGEST], factor_K).astype(np.float32)


def _shares_of_rows(weight_NK: Array) -> Array:
    """Magnitudes as shares of the largest of their row, since each row has a scale of its own."""
    size_NK = np.abs(weight_NK)
    most_N1 = size_NK.max(1, keepdims=True, initial=0.0)
    return np.asarray(size_NK / np.where(most_N1 > 0, most_N1, 1.0), np.float32)


def _spread(lowering: Lowering, factor_K: Array) -> Array:
    """The factors of all columns of the whole matrix: 1 for those that do not remain."""
    whole_K = np.ones(lowering.matrix.shape[1], np.float32)
    whole_K[lowering.columns] = factor_K
    return whole_K


def _input_sizes(
    weights: ClassifierWeights, choices: Mapping[str, LoweringChoice], batches: Sequence[Batch]
) -> list[tuple[list[str], Array]]:
    """For each input, the matrices that read it, and the largest magnitude of each channel."""
    gathered = any(choice.lowering.feature_major for choice in choices.values())
    reduce = partial(_add_sizes, token_axes=[0, 2] if gathered else [0])
    with observed_inputs(weights, choices, batches, reduce) as observed:
        return [
            (matrices, np.max(sizes, axis=0))
            for matrices, sizes in observed.reduced(_size, batches)
        ]


def _size(name: Name) -> Name:
    """The name of the output with the largest magnitudes of a value's channels."""
    return f"{name}/observed/size"


def _add_sizes(graph: Any, names: Sequence[Name], *, token_axes: Sequence[int]) -> None:
    """Add an output for each named value: the largest magnitude of each channel."""
    from onnx import TensorProto, helper

    for name in names:
        magnitude, size = f"{name}/observed/magnitude", _size(name)
        graph.node.append(helper.make_node("Abs", [name], [magnitude]))
        graph.node.append(
            helper.make_node("ReduceMax", [magnitude], [size], axes=list(token_axes), keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(size, TensorProto.FLOAT, [None]))
