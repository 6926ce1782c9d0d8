"""Embeddings as graph operators: words, positions and token types, summed, normalised, projected.

Whether a model has token types and a projection is seen from its tensors; where the positions of
its texts begin, its encoder knows.
"""

from exporters.arithmetic.float32 import Float32
from exporters.graph import Graph, Name
from exporters.layouts.layout import Axes
from exporters.layouts.token_major import TokenMajor
from exporters.weights import ClassifierWeights
from spd_deploy.domain.text import IDS, TYPES


def embeddings(g: Graph, weights: ClassifierWeights, axes: Axes) -> Name:
    """The encoder's input ``[T, H]``."""
    base = f"{weights.encoder.base}.embeddings"
    word = weights.weight(f"{base}.word_embeddings")
    x = g.op("Gather", g.weight("embeddings.word", word), IDS)
    if weights.token_types:
        x = g.op("Add", x, _types(g, weights))
    x = g.op("Add", x, _positions(g, weights, axes))
    x = g.reshape(x, -1, word.shape[1])
    x = TokenMajor(g, Float32()).norm(x, *weights.norm(f"{base}.LayerNorm"))
    if f"{base}_project.weight" not in weights.tensors:
        return x
    project = g.weight("embeddings.project", weights.weight(f"{base}_project"))
    return g.op("Gemm", x, project, g.constant(weights.bias(f"{base}_project")), transB=1)


def _types(g: Graph, weights: ClassifierWeights) -> Name:
    """The vector of each token's type; where there is one type alone, the input is not read.

    Tokenizers number the second text of a pair 1, also those of models that know only type 0.
    """
    table = g.weight("embeddings.type", weights.type_table)
    return table if weights.token_types == 1 else g.op("Gather", table, TYPES)


def _positions(g: Graph, weights: ClassifierWeights, axes: Axes) -> Name:
    """The vector of each token's position.

    From row 0 on, positions are the columns of the batch. Elsewhere RoBERTa's rule holds: tokens
    that are not padding are counted, and padding has its own id for a position.
    """
    from onnx import TensorProto

    encoder = weights.encoder
    table = g.weight(
        "embeddings.position", weights.weight(f"{encoder.base}.embeddings.position_embeddings")
    )
    if encoder.first_position == 0:
        return g.op("Slice", table, g.ints(0), axes.sequence, g.ints(0))
    padding = g.ints(encoder.first_position - 1)
    real = g.op("Cast", g.op("Not", g.op("Equal", IDS, padding)), to=TensorProto.INT64)
    counted = g.op("Mul", g.op("CumSum", real, g.ints(1)), real)
    return g.op("Gather", table, g.op("Add", counted, padding))
