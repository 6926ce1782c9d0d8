"""Embeddings as graph operators: word, position and token type, summed, normalised, projected.

The tensors of a model show whether it has token types and a projection; its encoder says at which
position texts begin. The word-embedding table is most of a small model's file. So it can be stored
in fp16, or in int8 with a scale for each row; the rows that a text reads are converted to fp32.
"""

import numpy as np
from numpy.typing import NDArray

from exporters.classifier_weights import ClassifierWeights
from exporters.onnx.arithmetic.arithmetic import Array, Constants
from exporters.onnx.arithmetic.float16 import FLOAT, to_fp16
from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.arithmetic.int8 import quantize_rows
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.layouts.layout import Axes
from exporters.onnx.layouts.token_major import TokenMajor
from exporters.precision import Precision
from spd_deploy.domain.text import IDS, TYPES

EMBEDDINGS = "embeddings"
WORD_EMBEDDINGS = f"{EMBEDDINGS}.word"
_SCALES = f"{WORD_EMBEDDINGS}.scale"


def embeddings(g: Graph, weights: ClassifierWeights, axes: Axes, stored: Precision) -> Name:
    """The encoder's input ``[T, H]`` in fp32; the word-embedding table is ``stored`` so."""
    base, architecture = f"{weights.encoder.base}.embeddings", weights.architecture
    table_VE = word_embeddings(weights)
    x = _gather_words(g, table_VE, stored)
    if weights.token_types:
        x = g.op("Add", x, _types(g, weights))
    if architecture.positions is not None:
        x = g.op("Add", x, _positions(g, weights, axes, architecture.positions))
    x = g.reshape(x, -1, table_VE.shape[1])
    norm = f"{weights.encoder.base}.{architecture.embedding_norm}"
    x = TokenMajor(g, Float32()).norm(x, *weights.norm(norm))
    if f"{base}_project.weight" not in weights.tensors:
        return x
    project = g.weight(f"{EMBEDDINGS}.project", weights.weight(f"{base}_project"))
    return g.op("Gemm", x, project, g.constant(weights.bias(f"{base}_project")), transB=1)


def word_embeddings(weights: ClassifierWeights) -> Array:
    """The word-embedding table of the checkpoint, ``[V, E]``."""
    return weights.weight(f"{weights.encoder.base}.{weights.architecture.words}")


def restored_word_embeddings(constants: Constants) -> Array:
    """The word-embedding table ``[V, E]`` in fp32, from the constants of a graph."""
    table_VE = np.asarray(constants[WORD_EMBEDDINGS], np.float32)
    scale_V = constants.get(_SCALES)
    return table_VE if scale_V is None else np.asarray(table_VE * scale_V[:, None], np.float32)


def _gather_words(g: Graph, table_VE: Array, stored: Precision) -> Name:
    """The word embeddings ``[B, S, E]`` of the tokens in fp32."""
    match stored:
        case Precision.FP32:
            return g.op("Gather", g.weight(WORD_EMBEDDINGS, table_VE), IDS)
        case Precision.FP16:
            halves = g.op("Gather", g.weight(WORD_EMBEDDINGS, to_fp16(table_VE)), IDS)
            return g.op("Cast", halves, to=FLOAT)
        case Precision.INT8:
            return _gather_int8_words(g, *quantize_rows(table_VE))


def _gather_int8_words(g: Graph, steps_VE: NDArray[np.int8], scale_V: Array) -> Name:
    """The word embeddings from int8 rows, with operators in the order that the target needs.

    For ONNX Runtime ``Gather`` comes first: else it converts the whole table to fp32 at every run.
    For OpenVINO and TensorRT ``DequantizeLinear`` comes first: OpenVINO swaps the two itself, and
    TensorRT reads an int8 constant nowhere else.
    """
    steps, scales = g.weight(WORD_EMBEDDINGS, steps_VE), g.weight(_SCALES, scale_V)
    if g.target is not Target.ONNXRUNTIME:
        zeros = g.constant(np.zeros(len(scale_V), np.int8))
        return g.op("Gather", g.op("DequantizeLinear", steps, scales, zeros, axis=0), IDS)
    values = g.op("Cast", g.op("Gather", steps, IDS), to=FLOAT)
    return g.op("Mul", values, g.op("Unsqueeze", g.op("Gather", scales, IDS), g.ints(-1)))


def _types(g: Graph, weights: ClassifierWeights) -> Name:
    """The embedding of each token's type; with one type alone, the input is not read.

    Tokenizers give the second text of a pair type 1, also for models that have type 0 only.
    """
    table = g.weight(f"{EMBEDDINGS}.type", weights.type_table)
    return table if weights.token_types == 1 else g.op("Gather", table, TYPES)


def _positions(g: Graph, weights: ClassifierWeights, axes: Axes, table_name: str) -> Name:
    """The embedding of each token's position.

    Where positions begin at 0, they are the columns of the batch. Elsewhere RoBERTa's rule holds:
    tokens that are not padding are counted, and the position of padding is the padding id.
    """
    from onnx import TensorProto

    encoder = weights.encoder
    table_PE = weights.weight(f"{encoder.base}.{table_name}")
    table = g.weight(f"{EMBEDDINGS}.position", table_PE)
    if encoder.first_position == 0:
        return g.op("Slice", table, g.ints(0), axes.sequence, g.ints(0))
    padding = g.ints(encoder.first_position - 1)
    real = g.op("Cast", g.op("Not", g.op("Equal", IDS, padding)), to=TensorProto.INT64)
    along = g.constant(np.array(1, np.int64))
    counted = g.op("Mul", g.op("CumSum", real, along), real)
    return g.op("Gather", table, g.op("Add", counted, padding))
