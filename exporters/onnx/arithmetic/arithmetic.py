"""Arithmetic: how a product reads its input, multiplies, and stores its weight in a precision.

Normalisation, softmax, activations, the residual stream and the head are fp32, which keeps fp16
finite and int8 accurate. ``EngineFloat16`` and ``EngineInt8`` also keep the activations between
operators in fp16. The layouts say where a value is cast to the precision between operators
(``cast_activation``), and where to fp32 (``cast_float32``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.graph import Graph, Name

Array = NDArray[np.float32]
Constants = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A matrix as it is multiplied.

    Attributes:
        name: the name of the matrix, with which the names of its constants begin.
        values_GRJ: G groups of R rows over J inputs each; a dense matrix is one group.
    """

    name: str
    values_GRJ: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """The input of a product; a quantised one has a scale and a zero point."""

    values: Name
    scale: Name = ""
    zero: Name = ""


class Arithmetic(Protocol):
    """The operators of a product in one precision."""

    @property
    def packs(self) -> bool:
        """Whether a weight with many zeros may be stored packed.

        Not where its reader needs the constant as it is.
        """
        ...

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """The input of the product with ``matrix``, made from ``x``."""
        ...

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """The product, ``[T, K]`` to ``[T, N]``, with bias and residual; the weight is one group.

        With a residual the result is fp32, without one in the precision between operators.
        """
        ...

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """The product of G groups, ``[B, I, S]`` to ``[B, N, S]``, with bias and residual.

        Group g reads inputs g J to (g + 1) J and gives R outputs. With a residual the result is
        fp32, without one in the precision between operators.
        """
        ...

    def cast_activation(self, g: Graph, x: Name) -> Name:
        """The fp32 value ``x`` in the precision between operators."""
        ...

    def cast_float32(self, g: Graph, x: Name) -> Name:
        """The value ``x`` between operators in fp32."""
        ...

    def scalar(self, g: Graph, value: float) -> Name:
        """A scalar in the precision between operators."""
        ...


class Float32Activations:
    """The part of an arithmetic that keeps fp32 between operators, so no cast is needed."""

    def cast_activation(self, g: Graph, x: Name) -> Name:
        """``x`` itself, which is fp32."""
        return x

    def cast_float32(self, g: Graph, x: Name) -> Name:
        """``x`` itself, which is fp32 already."""
        return x

    def scalar(self, g: Graph, value: float) -> Name:
        """An fp32 scalar, an initializer shared by all that use the value."""
        return g.scalar(value)


def restored(constants: Constants, name: str) -> Array:
    """The values of a stored weight in fp32; int8 values are multiplied by their row scales."""
    values = constants[f"{name}.weight"]
    scale_N = constants.get(f"{name}.scale")
    if scale_N is None:
        return np.asarray(values, np.float32)
    rows_NJ = np.asarray(values, np.float32).reshape(len(scale_N), -1)
    return np.asarray(rows_NJ * scale_N[:, None], np.float32).reshape(values.shape)
