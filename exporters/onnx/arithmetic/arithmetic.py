"""What a precision is to a graph: how a product reads its input, multiplies, and stores its weight.

Everything else - normalisation, softmax, activations, the residual stream, the head - is fp32,
which keeps fp16 finite and int8 accurate. But ``Half`` and ``HalfInt8`` have what lies between
operators in fp16 as well: the layouts say where a number is to be ``narrow`` or ``wide``.
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
        name: of the matrix; its constants are ``name.weight`` and what belongs to it.
        values_GRJ: G groups of R rows over J inputs each; a dense matrix is one group.
    """

    name: str
    values_GRJ: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """A product's input as it is read; quantised ones bring their scale and zero point."""

    values: Name
    scale: Name = ""
    zero: Name = ""


class Arithmetic(Protocol):
    """One precision."""

    @property
    def packs(self) -> bool:
        """Whether many zeros may be left out of a stored weight.

        Not where what reads it takes the constant as it is stored.
        """
        ...

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """What the product of ``matrix`` reads of ``x``."""
        ...

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """``[T, K]`` to ``[T, N]``, with bias and residual; the weight is one group.

        The result is wide where there is a residual, and narrow where there is none.
        """
        ...

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """Each of G runs of J of the I inputs ``[B, I, S]`` to its R of the outputs ``[B, N, S]``.

        The result has bias and residual; it is wide where there is a residual, else narrow.
        """
        ...

    def narrow(self, g: Graph, x: Name) -> Name:
        """``x`` of fp32 as it lies between operators."""
        ...

    def wide(self, g: Graph, x: Name) -> Name:
        """What lies between operators, in fp32."""
        ...

    def number(self, g: Graph, value: float) -> Name:
        """A scalar to compute with what lies between operators."""
        ...


class Wide:
    """A precision with fp32 between operators, where narrow is as wide."""

    def narrow(self, g: Graph, x: Name) -> Name:
        """As it is."""
        return x

    def wide(self, g: Graph, x: Name) -> Name:
        """As it is."""
        return x

    def number(self, g: Graph, value: float) -> Name:
        """A scalar of fp32."""
        return g.number(value)


def restored(constants: Constants, name: str) -> Array:
    """The values of a weight from its constants, in fp32; int8 ones by their row scales."""
    values = constants[f"{name}.weight"]
    scale_N = constants.get(f"{name}.scale")
    if scale_N is None:
        return np.asarray(values, np.float32)
    rows_NJ = np.asarray(values, np.float32).reshape(len(scale_N), -1)
    return np.asarray(rows_NJ * scale_N[:, None], np.float32).reshape(values.shape)
