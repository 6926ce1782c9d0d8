"""fp16 for TensorRT: all values between operators are fp16; what could overflow is fp32.

Products, biases and activations are fp16. So half the bytes are moved, and tensor cores multiply
attention too. Softmax, the sum with the residual, and the norm of that sum are fp32. TensorRT fuses
them into one pass over memory, which reads and writes fp16 in any case. So a value overflows only
where a single product is above 65504. An export in which one is, on the golden inputs, is refused
(``exporters.tensorrt.fp16_range``).
"""

import numpy as np

from exporters.onnx.arithmetic.arithmetic import Array, Operand, Weight
from exporters.onnx.arithmetic.float16 import FLOAT, FLOAT16, to_fp16
from exporters.onnx.arithmetic.float32 import batched
from exporters.onnx.graph import Graph, Name


class EngineFloat16:
    """fp16 in the products and between operators."""

    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` itself, which is fp16 already."""
        return Operand(values=x)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A product with the transposed weight; the sum with a residual is fp32."""
        values_NK = g.weight(f"{weight.name}.weight", to_fp16(weight.values_GRJ[0]))
        y = g.op("MatMul", x_TK.values, g.transpose(values_NK, 1, 0))
        return self._added(g, y, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product over the groups; the sum with a residual is fp32."""
        values = g.weight(f"{weight.name}.weight", to_fp16(weight.values_GRJ[None]))
        return self._added(g, batched(g, values, x_BIS.values, weight), bias_N[:, None], residual)

    def cast_activation(self, g: Graph, x: Name) -> Name:
        """``x`` cast to fp16."""
        return g.op("Cast", x, to=FLOAT16)

    def cast_float32(self, g: Graph, x: Name) -> Name:
        """``x`` cast to fp32, once for all operators that read it."""
        return g.once("Cast", x, to=FLOAT)

    def scalar(self, g: Graph, value: float) -> Name:
        """An fp16 scalar, rounded to the nearest."""
        return g.constant(np.array(value, np.float16))

    def _added(self, g: Graph, y: Name, bias: Array, residual: Name | None) -> Name:
        """``y`` with the bias in fp16 and the residual in fp32."""
        y = g.op("Add", y, g.constant(to_fp16(bias))) if bias.any() else y
        return (
            y
            if residual is None
            else g.op("Add", self.cast_float32(g, y), self.cast_float32(g, residual))
        )
