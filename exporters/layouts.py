"""The two ways activations lie in memory, with the operators of an encoder layer in each.

Token-major ``[tokens, features]`` is what dense products like best: one ``Gemm`` with its bias and
residual. Feature-major ``[features, tokens]`` is what gathered products need, since there a kept
input is one contiguous row; it is kept from the first layer to the last, because a transpose around
every product would cost what the sparsity saves.

T counts tokens (B rows of S), A heads of width D. The forms were chosen by measurement:
``benchmarks/baseline.py`` holds the dense one against ONNX Runtime's own fused form.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exporters.graph import Graph, Name
from exporters.lowering.choose import Lowering
from exporters.lowering.gathered import Gathered
from exporters.weights import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The dynamic sizes as one-element vectors; ``queries`` is S, or 1 in the last layer."""

    batch: Name
    sequence: Name
    queries: int | Name


class Layout(Protocol):
    """The operators of a layer on activations in one layout."""

    def enter(self, x_TH: Name) -> Name:
        """From token-major."""
        ...

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """Product, bias, and the residual where there is one."""
        ...

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """What is left of a layer part that has nothing to multiply."""
        ...

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """Layer norm over the features."""
        ...

    def attention(self, q: Name, k: Name, v: Name, *, heads: int, size: int, bias: Name, axes: Axes
    ) -> Name:  # fmt: skip
        """Softmax attention of ``heads`` heads; ``bias`` ``[B, 1, 1, S]`` hides the padding."""
        ...

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """Only the first token of each row."""
        ...

    def leave(self, x: Name) -> Name:
        """To token-major."""
        ...


class TokenMajor:
    """Activations ``[T, features]``."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph

    def enter(self, x_TH: Name) -> Name:
        """As it is."""
        return x_TH

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """One ``Gemm`` that adds bias and residual while it writes."""
        assert not isinstance(lowering, Gathered)  # noqa: S101 - classifier.py picks the layout
        addend = self.g.constant(bias_N)
        if residual is not None:
            addend = self.g.op("Add", residual, addend)
        weight = self.g.weight(lowering.matrix.weight_name, lowering.weight_NK)
        return self.g.op("Gemm", x, weight, addend, transB=1)

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """Along the features."""
        return self.g.op("Add", x, self.g.constant(bias_N))

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """The standard operator, whose axis this is."""
        scale, shift = self.g.constant(scale_H), self.g.constant(shift_H)
        return self.g.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)

    def attention(self, q: Name, k: Name, v: Name, *, heads: int, size: int, bias: Name, axes: Axes
    ) -> Name:  # fmt: skip
        """Heads are ``[B, A, S, D]``."""
        g = self.g
        q4 = g.transpose(g.reshape(q, axes.batch, axes.queries, heads, size), 0, 2, 1, 3)
        k4 = g.transpose(g.reshape(k, axes.batch, axes.sequence, heads, size), 0, 2, 3, 1)
        v4 = g.transpose(g.reshape(v, axes.batch, axes.sequence, heads, size), 0, 2, 1, 3)
        q4 = g.op("Mul", q4, g.number(size**-0.5))
        probability = g.op("Softmax", g.op("Add", g.op("MatMul", q4, k4), bias), axis=-1)
        context = g.transpose(g.op("MatMul", probability, v4), 0, 2, 1, 3)
        return g.reshape(context, -1, heads * size)

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """``[T, width]`` to ``[B, width]``."""
        rows = self.g.reshape(x, axes.batch, axes.sequence, width)
        return self.g.op("Gather", rows, self.g.constant(np.array(0, np.int64)), axis=1)

    def leave(self, x: Name) -> Name:
        """As it is."""
        return x


class FeatureMajor:
    """Activations ``[features, T]``."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph

    def enter(self, x_TH: Name) -> Name:
        """One transpose for the whole network."""
        return self.g.transpose(x_TH, 1, 0)

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """The product from the left, gathered where it is sparse."""
        y = self.g.op("Add", self._product(x, lowering), self.g.constant(bias_N[:, None]))
        return y if residual is None else self.g.op("Add", y, residual)

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """Along the features."""
        return self.g.op("Add", x, self.g.constant(bias_N[:, None]))

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """The standard operator between two transposes: faster here than any form over axis 0."""
        y = TokenMajor(self.g).norm(self.g.transpose(x, 1, 0), scale_H, shift_H, epsilon)
        return self.g.transpose(y, 1, 0)

    def attention(self, q: Name, k: Name, v: Name, *, heads: int, size: int, bias: Name, axes: Axes
    ) -> Name:  # fmt: skip
        """Heads are ``[A, B, D, S]``: for one row they are views, for more, copies of rows."""
        g = self.g
        q4 = g.transpose(g.reshape(q, heads, size, axes.batch, axes.queries), 0, 2, 3, 1)
        k4, v4 = (
            g.transpose(g.reshape(x, heads, size, axes.batch, axes.sequence), 0, 2, 1, 3)
            for x in (k, v)
        )
        q4 = g.op("Mul", q4, g.number(size**-0.5))
        across = g.reshape(bias, 1, -1, 1, axes.sequence)
        probability = g.op("Softmax", g.op("Add", g.op("MatMul", q4, k4), across), axis=-1)
        context = g.op("MatMul", v4, g.transpose(probability, 0, 1, 3, 2))
        return g.reshape(g.transpose(context, 0, 2, 1, 3), heads * size, -1)

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """``[width, T]`` to ``[width, B]``."""
        rows = self.g.reshape(x, width, axes.batch, axes.sequence)
        return self.g.op("Gather", rows, self.g.constant(np.array(0, np.int64)), axis=2)

    def leave(self, x: Name) -> Name:
        """One transpose at the end."""
        return self.g.transpose(x, 1, 0)

    def _product(self, x: Name, lowering: Lowering) -> Name:
        """``[K, T]`` to ``[N, T]``."""
        g, matrix = self.g, lowering.matrix
        if not isinstance(lowering, Gathered):
            return g.op("MatMul", g.weight(matrix.weight_name, lowering.weight_NK), x)
        names = {name: g.weight(name, value) for name, value in lowering.stored().items()}
        C, J = lowering.block.columns, lowering.values_GRJ.shape[2]
        if C > 1:  # a block of C inputs is C contiguous rows, so one row of C T numbers
            x = g.reshape(x, matrix.shape[1] // C, -1)
        read = g.op("Gather", x, names[f"{matrix.name}.index"], axis=0)
        if C > 1:
            read = g.op("Reshape", read, g.shape(len(lowering.index_GU), J, -1))
        y_GRT = g.op("MatMul", names[matrix.weight_name], read)
        return g.reshape(y_GRT, matrix.shape[0], -1)
