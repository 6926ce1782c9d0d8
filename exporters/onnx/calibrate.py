"""Calibration of static int8 graphs: the range of each matrix's input, on texts of the task.

A few tokens of an encoder have a few values that are hundreds of times larger than all others
(Bondarenko et al. 2021). A range that holds them leaves the others few int8 steps; one that cuts
them too far breaks those tokens. So the range is chosen of several percentiles of the magnitudes:
the one whose rounding changes the products of the matrices least. The change is taken in each
token's own measure and averaged over tokens, so that a token with huge values counts once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.graph import Name
from exporters.onnx.observe import kept_columns, observed_inputs
from spd_deploy.domain.text import Batch

_PERCENTILES = (99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 99.995, 99.998, 100.0)
# Tokens that a range is chosen on; those of a whole batch would take gigabytes in a large model.
_TOKENS = 512
# The range of a matrix that reads only zeros, whose int8 step must not be zero.
_MIN_RANGE = 1e-6
_INT8_MAX = 127


def calibrate_ranges(
    weights: ClassifierWeights,
    choices: Mapping[str, LoweringChoice],
    batches: Sequence[Batch],
    smoothing: Mapping[str, Array] | None = None,
) -> dict[str, float]:
    """The range of each matrix's input, by the matrix's name. Matrices of one input share it.

    Raises:
        BadData: there are no batches.
    """
    gathered = any(choice.lowering.feature_major for choice in choices.values())
    places = sample_places(len(batches))
    reduce = partial(_add_samples, places=places, feature_major=gathered)
    ranges: dict[str, float] = {}
    with observed_inputs(weights, choices, batches, reduce, smoothing) as observed:
        for matrices, samples in observed.reduced(_sample, batches):
            read = [kept_columns(choices[one].lowering, weights.weight(one)) for one in matrices]
            best = best_range(np.concatenate(samples), np.concatenate(read))
            ranges |= dict.fromkeys(matrices, best)
    return ranges


def sample_places(batches: int) -> Array:
    """Random positions in [0, 1) of the sampled tokens in a batch, the same for every batch."""
    tokens = -(-_TOKENS // max(1, batches))
    return np.random.default_rng(0).random(tokens, dtype=np.float32)


def best_range(x_TK: Array, weight_NK: Array) -> float:
    """The range in which int8 changes the products ``x W^T`` least.

    Args:
        x_TK: inputs of T tokens.
        weight_NK: the weights of all matrices that read them.
    """
    largest = np.unique(np.percentile(np.abs(x_TK), _PERCENTILES)) if x_TK.size else np.zeros(1)
    ranges = np.maximum(largest, _MIN_RANGE)
    return float(min(ranges, key=lambda one: relative_error(x_TK, weight_NK, float(one))))


def relative_error(x_TK: Array, weight_NK: Array, range: float) -> float:
    """The mean over tokens of ``|W (x - int8(x))|^2 / |W x|^2``.

    Tokens whose product is zero are left out.
    """
    step = range / _INT8_MAX
    rounded_TK = np.clip(np.rint(x_TK / step), -_INT8_MAX, _INT8_MAX) * step
    change_T = np.square((rounded_TK - x_TK) @ weight_NK.T).sum(1)
    whole_T = np.square(x_TK @ weight_NK.T).sum(1)
    return float(np.mean(change_T[whole_T > 0] / whole_T[whole_T > 0])) if whole_T.any() else 0.0


def _sample(name: Name) -> Name:
    """The name of the output with some tokens of a value, ``[tokens, K]``."""
    return f"{name}/observed/sample"


def _add_samples(graph: Any, names: Sequence[Name], *, places: Array, feature_major: bool) -> None:
    """Add an output for each named value: the tokens at ``places``, shares of the whole batch."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {"places": places}
    graph.initializer.extend(
        numpy_helper.from_array(value, f"observed/{key}") for key, value in constants.items()
    )
    for name in names:
        rows = f"{name}/observed/rows"
        inner = {
            key: f"{name}/observed/{key}" for key in ("transposed", "count", "size", "at", "index")
        }
        transposed = [("Transpose", [name], inner["transposed"], {"perm": [0, 2, 1]})]
        nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
            *(transposed if feature_major else []),
            ("Flatten", [inner["transposed"] if feature_major else name], rows,
             {"axis": 2 if feature_major else 1}),
            ("Shape", [rows], inner["count"], {"start": 0, "end": 1}),
            ("Cast", [inner["count"]], inner["size"], {"to": TensorProto.FLOAT}),
            ("Mul", [inner["size"], "observed/places"], inner["at"], {}),
            ("Cast", [inner["at"]], inner["index"], {"to": TensorProto.INT64}),
            ("Gather", [rows, inner["index"]], _sample(name), {"axis": 0}),
        ]  # fmt: skip
        graph.node.extend(helper.make_node(op, read, [to], **more) for op, read, to, more in nodes)
        graph.output.append(
            helper.make_tensor_value_info(_sample(name), TensorProto.FLOAT, [None, None])
        )
