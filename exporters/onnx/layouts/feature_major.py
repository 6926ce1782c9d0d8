"""Feature-major ``[B, features, S]``: the layout that gathered products need.

A kept input is one contiguous row of S numbers, so gathering is a few memory copies. The layout is
kept from the embeddings to the classifier. Attention needs no transpose in it: heads are a view,
and the products of scores and context transpose one operand while they read it.

One product for queries, keys and values was measured at 0.94 to 1.00 times the speed of three:
splitting its result copies it. So there are three.
"""

from collections.abc import Sequence

import numpy as np

from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.layouts.layout import Axes, PositionScores, Rotate, SplitRows
from exporters.onnx.layouts.token_major import TokenMajor
from exporters.onnx.operators import product


class FeatureMajor:
    """The operators on activations ``[B, features, S]``; ``[1, features, B]`` in the last layer."""

    def __init__(self, graph: Graph, arithmetic: Arithmetic) -> None:
        self.g = graph
        self.arithmetic = arithmetic

    def enter(self, x_TH: Name, axes: Axes) -> Name:
        """One transpose for the whole network."""
        rows = self.g.reshape(x_TH, axes.batch, axes.sequence, -1)
        return self.arithmetic.cast_activation(self.g, self.g.transpose(rows, 0, 2, 1))

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """The product with the weight as the first operand, gathered where it is sparse."""
        return lowering.on_features(self.g, self.arithmetic, x, bias_N, residual)

    def scaled(self, x: Name, factor_K: Array) -> Name:
        """Each feature times its factor, in fp32."""
        wide = self.arithmetic.cast_float32(self.g, x)
        return self.g.once("Mul", wide, self.g.constant(factor_K[:, None]))

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """The sum with the bias of each feature, in fp32."""
        wide = self.arithmetic.cast_float32(self.g, x)
        return self.g.op("Add", wide, self.g.constant(bias_N[:, None])) if bias_N.any() else wide

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """The operator ``LayerNormalization`` between two transposes, or its parts over axis 1.

        ONNX Runtime gets the operator, which is as fast as the parts in batches, and faster for one
        short row. OpenVINO and TensorRT get the parts, which they fuse. There the mean is a product
        with a row of 1 / H for OpenVINO, and a reduction for TensorRT, which fuses no products.
        """
        g = self.g
        if g.target is Target.ONNXRUNTIME:
            normed = TokenMajor(g, self.arithmetic).norm(
                g.transpose(x, 0, 2, 1), scale_H, shift_H, epsilon
            )
            return g.transpose(normed, 0, 2, 1)
        centred = g.op("Sub", x, self._mean(x, len(scale_H)))
        variance = self._mean(g.op("Mul", centred, centred), len(scale_H))
        deviation = g.op("Sqrt", g.op("Add", variance, g.scalar(epsilon)))
        unit = g.op("Mul", centred, g.op("Reciprocal", deviation))
        scaled = g.op("Mul", unit, g.constant(scale_H[:, None]))
        return self.arithmetic.cast_activation(g, g.op("Add", scaled, g.constant(shift_H[:, None])))

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
        """Attention on heads ``[B, A, D, S]``."""
        g = self.g
        if axes.first:
            q = g.transpose(q, 2, 1, 0)
        q4, k4, v4 = (g.reshape(x, 0, heads, head_size, -1) for x in (q, k, v))
        if rotate is not None:  # a first token, at position 0, is not rotated
            q4, k4 = q4 if axes.first else rotate(q4, True), rotate(k4, True)
        if chunks is not None:
            q4, k4, v4 = (chunks.of_columns(x) for x in (q4, k4, v4))
            k4, v4 = (chunks.with_neighbours(x, 4) for x in (k4, v4))
        scalar, axes_of = self.arithmetic.scalar, 4 if chunks is None else 5
        added = [] if position_scores is None else position_scores(q4, k4, True)
        scores = product(g, q4, k4, transpose_a=True, axes=axes_of, scale=scale, scalar=scalar)
        scores = self.arithmetic.cast_float32(g, scores)
        for attention_bias in (*added, *attention_biases):
            scores = g.op("Add", scores, attention_bias)
        probability = self.arithmetic.cast_activation(g, g.op("Softmax", scores, axis=-1))
        context = product(g, v4, probability, transpose_b=True, axes=axes_of)
        if chunks is not None:
            context = g.transpose(context, 0, 1, 3, 2, 4)
        context = g.reshape(context, 0, heads * head_size, -1)
        return g.transpose(context, 2, 1, 0) if axes.first else context

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """The first tokens: ``[B, width, S]`` to ``[1, width, B]``, one product for all rows."""
        first = self.g.op("Gather", x, self.g.ints(0), axis=2)
        return self.g.transpose(first, 2, 1, 0)

    def mean_pooled(self, x: Name, share_BS: Name, axes: Axes, width: int) -> Name:
        """The product of ``x``, ``[B, width, S]``, and ``share_BS`` as columns ``[B, S, 1]``."""
        g = self.g
        shares = g.op("Unsqueeze", share_BS, g.ints(2))
        product = g.op("MatMul", self.arithmetic.cast_float32(g, x), shares)
        return g.reshape(product, -1, width)

    def leave(self, x: Name, width: int) -> Name:
        """The first tokens ``[1, width, B]`` as ``[B, width]`` in fp32."""
        return self.arithmetic.cast_float32(
            self.g, self.g.reshape(self.g.transpose(x, 2, 1, 0), -1, width)
        )

    def _mean(self, x: Name, H: int) -> Name:
        """The mean over the features, ``[B, 1, S]``."""
        if self.g.target is Target.TENSORRT:
            return self.g.op("ReduceMean", x, axes=[1], keepdims=1)
        return self.g.op("MatMul", self.g.constant(np.full((1, 1, H), 1 / H, np.float32)), x)
