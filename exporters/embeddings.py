"""Embeddings as graph operators: words, positions and token types, summed, normalised, projected.

Whether a model has token types and a projection is seen from its tensors; where the positions of
its texts begin, its encoder knows. The table of words is most of a small model's file, so it can be
stored in fp16, or in int8 with a scale a row; what a text reads of it is fp32 again.
"""

import numpy as np
from numpy.typing import NDArray

from exporters.arithmetic.arithmetic import Array, Constants
from exporters.arithmetic.float16 import SINGLE, halved
from exporters.arithmetic.float32 import Float32
from exporters.arithmetic.int8 import quantised
from exporters.graph import Graph, Name, Target
from exporters.layouts.layout import Axes
from exporters.layouts.token_major import TokenMajor
from exporters.precisions import Precision
from exporters.weights import ClassifierWeights
from spd_deploy.domain.text import IDS, TYPES

EMBEDDINGS = "embeddings"
WORDS = f"{EMBEDDINGS}.word"
_SCALES = f"{WORDS}.scale"


def embeddings(g: Graph, weights: ClassifierWeights, axes: Axes, stored: Precision) -> Name:
    """The encoder's input ``[T, H]`` in fp32, with the table of words ``stored`` in a precision."""
    base = f"{weights.encoder.base}.embeddings"
    word = word_table(weights)
    x = _words(g, word, stored)
    if weights.token_types:
        x = g.op("Add", x, _types(g, weights))
    x = g.op("Add", x, _positions(g, weights, axes))
    x = g.reshape(x, -1, word.shape[1])
    x = TokenMajor(g, Float32()).norm(x, *weights.norm(f"{base}.LayerNorm"))
    if f"{base}_project.weight" not in weights.tensors:
        return x
    project = g.weight(f"{EMBEDDINGS}.project", weights.weight(f"{base}_project"))
    return g.op("Gemm", x, project, g.constant(weights.bias(f"{base}_project")), transB=1)


def word_table(weights: ClassifierWeights) -> Array:
    """The vectors of the vocabulary ``[V, H]``, as the checkpoint has them."""
    return weights.weight(f"{weights.encoder.base}.embeddings.word_embeddings")


def restored_words(constants: Constants) -> Array:
    """The vectors of the vocabulary ``[V, H]`` in fp32, from the constants of a graph."""
    table_VH = np.asarray(constants[WORDS], np.float32)
    scale_V = constants.get(_SCALES)
    return table_VH if scale_V is None else np.asarray(table_VH * scale_V[:, None], np.float32)


def _words(g: Graph, table_VH: Array, stored: Precision) -> Name:
    """The vectors ``[B, S, H]`` of the tokens, in fp32."""
    match stored:
        case Precision.FP32:
            return g.op("Gather", g.weight(WORDS, table_VH), IDS)
        case Precision.FP16:
            halves = g.op("Gather", g.weight(WORDS, halved(table_VH)), IDS)
            return g.op("Cast", halves, to=SINGLE)
        case Precision.INT8:
            return _int8_words(g, *quantised(table_VH))


def _int8_words(g: Graph, steps_VH: NDArray[np.int8], scale_V: Array) -> Name:
    """Rows of int8 with a scale each, in the order of operators that the target is quick with.

    ONNX Runtime makes a whole table fp32 at every run where ``DequantizeLinear`` stands before the
    ``Gather``. In the portable form it does: OpenVINO gathers first all the same, and TensorRT
    takes an int8 constant nowhere else.
    """
    steps, scales = g.weight(WORDS, steps_VH), g.weight(_SCALES, scale_V)
    if g.target is not Target.ONNXRUNTIME:
        zeros = g.constant(np.zeros(len(scale_V), np.int8))
        return g.op("Gather", g.op("DequantizeLinear", steps, scales, zeros, axis=0), IDS)
    values = g.op("Cast", g.op("Gather", steps, IDS), to=SINGLE)
    return g.op("Mul", values, g.op("Unsqueeze", g.op("Gather", scales, IDS), g.ints(-1)))


def _types(g: Graph, weights: ClassifierWeights) -> Name:
    """The vector of each token's type; where there is one type alone, the input is not read.

    Tokenizers number the second text of a pair 1, also those of models that know only type 0.
    """
    table = g.weight(f"{EMBEDDINGS}.type", weights.type_table)
    return table if weights.token_types == 1 else g.op("Gather", table, TYPES)


def _positions(g: Graph, weights: ClassifierWeights, axes: Axes) -> Name:
    """The vector of each token's position.

    From row 0 on, positions are the columns of the batch. Elsewhere RoBERTa's rule holds: tokens
    that are not padding are counted, and padding has its own id for a position.
    """
    from onnx import TensorProto

    encoder = weights.encoder
    table = g.weight(
        f"{EMBEDDINGS}.position", weights.weight(f"{encoder.base}.embeddings.position_embeddings")
    )
    if encoder.first_position == 0:
        return g.op("Slice", table, g.ints(0), axes.sequence, g.ints(0))
    padding = g.ints(encoder.first_position - 1)
    real = g.op("Cast", g.op("Not", g.op("Equal", IDS, padding)), to=TensorProto.INT64)
    counted = g.op("Mul", g.op("CumSum", real, g.ints(1)), real)
    return g.op("Gather", table, g.op("Add", counted, padding))
