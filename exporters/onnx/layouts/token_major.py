"""Token-major ``[T, features]``: the layout in which dense products are fastest.

The operators were chosen by measurement: ``benchmarks/baseline.py`` compares them with ONNX
Runtime's own fused attention. One product for queries, keys and values gains nothing over three,
since its result must be split again.
"""

from collections.abc import Sequence

import numpy as np

from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.graph import Graph, Name
from exporters.onnx.layouts.layout import Axes, PositionScores, Rotate, SplitRows


class TokenMajor:
    """The operators on activations ``[T, features]``."""

    def __init__(self, graph: Graph, arithmetic: Arithmetic) -> None:
        self.g = graph
        self.arithmetic = arithmetic

    def enter(self, x_TH: Name, axes: Axes) -> Name:
        """The activations unchanged, cast to the precision between operators."""
        return self.arithmetic.cast_activation(self.g, x_TH)

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """One ``Gemm`` that adds bias and residual while it writes."""
        return lowering.on_tokens(self.g, self.arithmetic, x, bias_N, residual)

    def scaled(self, x: Name, factor_K: Array) -> Name:
        """The product with the factors along the last axis, in fp32."""
        wide = self.arithmetic.cast_float32(self.g, x)
        return self.g.once("Mul", wide, self.g.constant(factor_K))

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """The bias along the last axis."""
        wide = self.arithmetic.cast_float32(self.g, x)
        return self.g.op("Add", wide, self.g.constant(bias_N)) if bias_N.any() else wide

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """The standard operator, which normalises the last axis."""
        scale, shift = self.g.constant(scale_H), self.g.constant(shift_H)
        return self.arithmetic.cast_activation(
            self.g,
            self.g.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon),
        )

    def attention(
        self,
        q: Name,
        k: Name,
        v: Name,
        *,
        heads: int,
        head_size: int,
        attention_biases: Sequence[Name],
        axes: Axes,
        scale: float,
        rotate: Rotate | None = None,
        position_scores: PositionScores | None = None,
        chunks: SplitRows | None = None,
    ) -> Name:
        """Attention on heads ``[B, A, S, D]``; ONNX Runtime fuses the scale into the product."""
        g = self.g
        queries: int | Name = 1 if axes.first else axes.sequence
        q4 = g.transpose(g.reshape(q, axes.batch, queries, heads, head_size), 0, 2, 1, 3)
        k4 = g.transpose(g.reshape(k, axes.batch, axes.sequence, heads, head_size), 0, 2, 3, 1)
        v4 = g.transpose(g.reshape(v, axes.batch, axes.sequence, heads, head_size), 0, 2, 1, 3)
        if rotate is not None:  # a first token, at position 0, is not rotated
            q4, k4 = q4 if axes.first else rotate(q4, False), rotate(k4, True)
        if chunks is not None:
            q4, v4 = (chunks.of_rows(x, head_size) for x in (q4, v4))
            k4 = chunks.with_neighbours(chunks.of_columns(k4), 4)
            v4 = chunks.with_neighbours(v4, 3)
        added = [] if position_scores is None else position_scores(q4, k4, False)
        q4 = g.op("Mul", q4, self.arithmetic.scalar(g, scale))
        scores = self.arithmetic.cast_float32(g, g.op("MatMul", q4, k4))
        for attention_bias in (*added, *attention_biases):
            scores = g.op("Add", scores, attention_bias)
        probability = self.arithmetic.cast_activation(g, g.op("Softmax", scores, axis=-1))
        context = g.op("MatMul", probability, v4)
        if chunks is not None:
            context = g.reshape(context, 0, 0, -1, head_size)
        context = g.transpose(context, 0, 2, 1, 3)
        return g.reshape(context, -1, heads * head_size)

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """The first token of each row: ``[T, width]`` to ``[B, width]``."""
        rows = self.g.reshape(x, axes.batch, axes.sequence, width)
        return self.g.op("Gather", rows, self.g.constant(np.array(0, np.int64)), axis=1)

    def mean_pooled(self, x: Name, share_BS: Name, axes: Axes, width: int) -> Name:
        """A product of the shares ``[B, 1, S]`` with the rows ``[B, S, width]``."""
        g = self.g
        rows = g.reshape(self.arithmetic.cast_float32(g, x), axes.batch, axes.sequence, width)
        return g.reshape(g.op("MatMul", g.op("Unsqueeze", share_BS, g.ints(1)), rows), -1, width)

    def leave(self, x: Name, width: int) -> Name:
        """The activations unchanged, cast to fp32."""
        return self.arithmetic.cast_float32(self.g, x)
