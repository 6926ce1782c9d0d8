"""int8: weights are quantised by row and symmetrically, so zeros stay zeros.

ONNX Runtime's graph quantises activations at run time and needs no data: with one range for all
tokens (``DynamicInt8``), or with a range for each token (``TokenInt8``). The portable graph has
``QuantizeLinear`` and ``DequantizeLinear`` pairs with calibrated ranges (``StaticInt8``), in the
form that TensorRT's parser needs. It accepts no zero point but 0, so zero points are written as
int8 zeros; without one, ``QuantizeLinear`` would give uint8. It accepts no ``DequantizeLinear`` of
int32, so biases stay fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.arithmetic.arithmetic import Array, Float32Activations, Operand, Weight
from exporters.onnx.arithmetic.float32 import added, gemm
from exporters.onnx.graph import Graph, Name

_INT8_MAX = 127
_FLOAT, _UINT8, _INT32 = 1, 2, 6  # of TensorProto
_ZERO_OF_UINT8 = 128
# The scale of a row of zeros.
_LEAST_SCALE = 1e-12


def quantize_rows(rows_NJ: Array) -> tuple[NDArray[np.int8], Array]:
    """The rows in int8 with a scale for each; the scale of a row of zeros is 1."""
    most_N = np.abs(rows_NJ).max(1, initial=0.0)
    scale_N = np.where(most_N > 0, most_N / _INT8_MAX, 1).astype(np.float32)
    return np.rint(rows_NJ / scale_N[:, None]).astype(np.int8), scale_N


def _stored(g: Graph, weight: Weight, *shape: int) -> tuple[Name, Name, Array]:
    """Add the constants of a weight: int8 values in the shape ``shape``, and the row scales.

    The graphs of an artefact share the bytes, whatever shapes they read them in.
    """
    G, R, J = weight.values_GRJ.shape
    values_NJ, scale_N = quantize_rows(weight.values_GRJ.reshape(G * R, J))
    values = g.weight(f"{weight.name}.weight", values_NJ.reshape(shape))
    return values, g.weight(f"{weight.name}.scale", scale_N), scale_N


class DynamicInt8(Float32Activations):
    """int8 for ONNX Runtime: each input is quantised at run time, by its own range."""

    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` quantised once for all products that read it."""
        values, scale, zero = g.once_many("DynamicQuantizeLinear", x, outputs=3)
        return Operand(values=values, scale=scale, zero=zero)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """The operators that ONNX Runtime fuses into one ``DynamicQuantizeMatMul``."""
        values, scale, _ = _stored(g, weight, *weight.values_GRJ.shape[1:])
        values_KN = g.transpose(values, 1, 0)
        zero = g.constant(np.array(0, np.int8))
        y = g.op("MatMulInteger", x_TK.values, values_KN, x_TK.zero, zero)
        y = g.op("Mul", g.op("Cast", y, to=_FLOAT), g.op("Mul", x_TK.scale, scale))
        return added(g, y, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A product whose first operand is the weight, as uint8, which the VNNI kernel needs.

        The shift by 128 is folded when the graph is loaded. A batch norm of mean 0 and variance 1
        multiplies by the scale and adds the bias in one pass; two passes take up to 1.6 times the
        time of the product.
        """
        G, R, J = weight.values_GRJ.shape
        values, scale, _ = _stored(g, weight, G, R, J)
        int32 = g.op("Cast", values, to=_INT32)
        shifted = g.op("Add", int32, g.constant(np.array(_ZERO_OF_UINT8, np.int32)))
        unsigned = g.op("Cast", shifted, to=_UINT8)
        zero = g.constant(np.array(_ZERO_OF_UINT8, np.uint8))
        read = g.reshape(x_BIS.values, 0, G, J, -1)
        y = g.reshape(g.op("MatMulInteger", unsigned, read, zero, x_BIS.zero), 0, G * R, -1)
        mean, variance = (g.constant(np.full(G * R, v, np.float32)) for v in (0, 1))
        scales = g.op("Mul", x_BIS.scale, scale)
        y = g.op("Cast", y, to=_FLOAT)
        bias = g.constant(bias_N)
        y = g.op("BatchNormalization", y, scales, bias, mean, variance, epsilon=0.0)
        return y if residual is None else g.op("Add", y, residual)


class TokenInt8(Float32Activations):
    """int8 for ONNX Runtime with a range for each token, in token-major networks.

    One token whose values are large no longer takes the steps of all others. A product takes 4 to
    20 % longer than with one range for all.
    """

    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """The rows of ``x`` in uint8 around 128, and the scale of each."""
        size_T = g.once("ReduceMax", g.once("Abs", x), g.ints(-1), keepdims=0)
        scale_T = g.once("Mul", size_T, g.scalar(1 / _INT8_MAX))
        scale_T = g.once("Max", scale_T, g.scalar(_LEAST_SCALE))
        zero = g.constant(np.array(_ZERO_OF_UINT8, np.uint8))
        zeros_T = g.once("Expand", zero, g.once("Shape", scale_T))
        values = g.once("QuantizeLinear", x, scale_T, zeros_T, axis=0)
        return Operand(values=values, scale=scale_T, zero=zero)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A product whose rows are scaled apart.

        The largest scale is a scalar, which ONNX Runtime fuses into the product as in
        ``DynamicInt8``. A pass over the result multiplies each row by its share of it.
        """
        values, scale, _ = _stored(g, weight, *weight.values_GRJ.shape[1:])
        zero = g.constant(np.array(0, np.int8))
        y = g.op("MatMulInteger", x_TK.values, g.transpose(values, 1, 0), x_TK.zero, zero)
        largest = g.once("ReduceMax", x_TK.scale, keepdims=0)
        y = g.op("Mul", g.op("Cast", y, to=_FLOAT), g.op("Mul", largest, scale))
        share_T1 = g.once("Unsqueeze", g.once("Div", x_TK.scale, largest), g.ints(1))
        return added(g, g.op("Mul", y, share_T1), bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """Not possible: ``QuantizeLinear`` has scales along one axis, and tokens are along two."""
        raise AssertionError("a range for each token needs token-major activations")


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticInt8(Float32Activations):
    """int8 for portable graphs: pairs of ``QuantizeLinear`` and ``DequantizeLinear``.

    Attributes:
        ranges: the largest magnitude of each matrix's input, by the matrix's name.
    """

    ranges: Mapping[str, float]
    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` quantised by its calibrated range, once for all products that read it.

        A ``Gather`` reads the int8 values: TensorRT and OpenVINO compute a product in int8 only
        where ``DequantizeLinear`` is directly before it.
        """
        scale = g.scalar(self.ranges[matrix] / _INT8_MAX)
        zero = g.constant(np.array(0, np.int8))
        rounded = g.once("QuantizeLinear", x, scale, zero)
        return Operand(values=rounded, scale=scale, zero=zero)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One ``Gemm``, whose weight has one scale for each row."""
        values, scale, scale_N = _stored(g, weight, *weight.values_GRJ.shape[1:])
        zeros = g.constant(np.zeros(len(scale_N), np.int8))
        values_NK = g.op("DequantizeLinear", values, scale, zeros, axis=0)
        read = g.once("DequantizeLinear", x_TK.values, x_TK.scale, x_TK.zero)
        return gemm(g, read, values_NK, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product; rows are on two axes, so their scales are multiplied afterwards."""
        G, R, J = weight.values_GRJ.shape
        values, scale, _ = _stored(g, weight, 1, G, R, J)
        zero = g.constant(np.array(0, np.int8))
        steps = g.op("DequantizeLinear", values, g.scalar(1.0), zero)
        apart = g.reshape(x_BIS.values, 0, G, J, -1)
        read = g.op("DequantizeLinear", apart, x_BIS.scale, x_BIS.zero)
        y = g.reshape(g.op("MatMul", steps, read), 0, G * R, -1)
        y = g.op("Mul", y, g.reshape(scale, -1, 1))
        return added(g, y, bias_N[:, None], residual)
