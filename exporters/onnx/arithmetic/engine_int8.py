"""int8 for TensorRT: the products with the encoder's matrices are int8, everything else is fp16.

The rest of the graph is that of ``EngineFloat16``. In fp32, the products inside attention and the
activations between int8 products would take longer than all int8 products together. Values are
fp32 in two places only, because ``QuantizeLinear`` and ``DequantizeLinear`` have no fp16 up to
opset 18: between a ``Cast`` and the ``QuantizeLinear`` after it, and between a product and the
``Cast`` after it.
"""

from collections.abc import Callable, Mapping

from exporters.onnx.arithmetic.arithmetic import Array, Operand, Weight
from exporters.onnx.arithmetic.engine_float16 import EngineFloat16
from exporters.onnx.arithmetic.int8 import StaticInt8
from exporters.onnx.graph import Graph, Name

Product = Callable[[Graph, Operand, Weight, Array, Name | None], Name]


class EngineInt8(EngineFloat16):
    """Calibrated int8 in the products with the encoder's matrices, and fp16 elsewhere."""

    def __init__(self, ranges: Mapping[str, float]) -> None:
        self._products = StaticInt8(ranges=ranges)

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` quantised once for all products that read it."""
        return self._products.operand(g, self.cast_float32(g, x), matrix)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One ``Gemm``; the sum with a residual is fp32."""
        return self._between(self._products.on_tokens, g, x_TK, weight, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product over the groups; the sum with a residual is fp32."""
        return self._between(self._products.on_features, g, x_BIS, weight, bias_N, residual)

    def _between(
        self, product: Product, g: Graph, x: Operand, weight: Weight, bias_N: Array,
        residual: Name | None,
    ) -> Name:  # fmt: skip
        """A product with fp32 output, cast to fp16 where it has no residual."""
        if residual is None:
            return self.cast_activation(g, product(g, x, weight, bias_N, None))
        return product(g, x, weight, bias_N, self.cast_float32(g, residual))
