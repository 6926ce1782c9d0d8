"""A layout: how activations are arranged in memory, and the operators of a layer on them.

B rows of S tokens are T tokens; A heads are D wide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Array
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.text import MASK

FLOAT, INT32 = 1, 6  # of TensorProto
# Heads of queries or keys to heads rotated by their positions; whether features come before tokens.
Rotate = Callable[[Name, bool], Name]
# Queries and keys, and whether features come before tokens in queries, to what positions add to the
# scores; in keys they always do.
PositionScores = Callable[[Name, Name, bool], Sequence[Name]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The dynamic sizes, each the name of a one-element vector.

    Attributes:
        mask: which tokens are real, ``[B, S]`` in int64.
        first: whether there are queries for the first token of each row only, as in the last layer.
    """

    batch: Name
    sequence: Name
    mask: Name = MASK
    first: bool = False

    def places(self, g: Graph) -> Name:
        """The positions 0, 1, 2, ... of a row's tokens, ``[S]`` in int32.

        In bf16, to which a runtime may round fp32, 257 and 258 are one number.
        """
        whole = g.once("Squeeze", self.sequence)
        zero, one = (g.constant(np.array(value, np.int64)) for value in (0, 1))
        return g.once("Cast", g.once("Range", zero, whole, one), to=INT32)


def beyond(g: Graph, query: Name, key: Name, window: int) -> Name:
    """Whether positions are further from each other than a window; in int32, broadcast."""
    difference = g.op("Sub", query, key)
    farthest, least = (g.constant(np.array(value, np.int32)) for value in (window, -window))
    return g.op("Or", g.op("Greater", difference, farthest), g.op("Less", difference, least))


class SplitRows(Protocol):
    """Splits rows into N chunks of C tokens, each of which meets its neighbours' tokens as keys."""

    def of_columns(self, x4: Name) -> Name:
        """``[B, A, D, S]`` as ``[B, A, N, D, C]``."""
        ...

    def of_rows(self, x4: Name, width: int) -> Name:
        """``[B, A, S, D]`` of this width D as ``[B, A, N, C, D]``."""
        ...

    def with_neighbours(self, x5: Name, axis: int) -> Name:
        """Chunks with the tokens of their neighbours before and behind them along an axis."""
        ...


class Layout(Protocol):
    """The operators of a layer on activations in one layout.

    Activations are in the precision that the arithmetic keeps between operators
    (``exporters.onnx.arithmetic``). The inputs of norms and the outputs of layers are fp32.
    """

    def enter(self, x_TH: Name, axes: Axes) -> Name:
        """Token-major activations ``[T, H]`` in this layout."""
        ...

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """The product of a lowering with bias, and with the residual where there is one."""
        ...

    def scaled(self, x: Name, factor_K: Array) -> Name:
        """Each feature times its factor, in fp32; one operator for all products that read it."""
        ...

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """The bias alone, for a part of a layer that has no weights left."""
        ...

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """The layer norm over the features."""
        ...

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
        """Softmax attention of ``heads`` heads of width ``head_size``.

        Args:
            q: queries.
            k: keys.
            v: values.
            heads: how many there are.
            head_size: width of a head.
            attention_biases: what is added to the scores ``[B, A, Q, S]``: the mask of padding and,
                where the model has them, biases by relative position.
            axes: the dynamic sizes.
            scale: what the products of queries and keys are multiplied by.
            rotate: rotates queries and keys by their positions, where the model has rotary ones.
            position_scores: makes what positions add to the scores, where attention is
                disentangled.
            chunks: splits rows, where tokens see only those near by; the biases are then added to
                the scores ``[B, A, N, C, keys]``.
        """
        ...

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """The activations of the first token of each row."""
        ...

    def mean_pooled(self, x: Name, share_BS: Name, axes: Axes, width: int) -> Name:
        """The mean of the activations of each row, ``[B, width]`` in fp32.

        Args:
            x: activations of all tokens.
            share_BS: one over the number of a row's tokens, and 0 at padding, in fp32.
            axes: the dynamic sizes.
            width: number of features.
        """
        ...

    def leave(self, x: Name, width: int) -> Name:
        """The activations of the first tokens as ``[B, width]``."""
        ...
