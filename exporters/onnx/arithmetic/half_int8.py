"""int8 products with fp16 between them, as GPUs like it.

What lies between quantised products is as large as it would be without them, and attention's own
products are not quantised at all; in single precision both would take longer than all of the
products. So the rest is as ``Half`` has it. Numbers are single only from a ``Cast`` to the
``QuantizeLinear`` behind it, and from a product to the ``Cast`` after it, since until opset 19
those operators know no halves.
"""

from collections.abc import Callable, Mapping

from exporters.onnx.arithmetic.arithmetic import Array, Operand, Weight
from exporters.onnx.arithmetic.half import Half
from exporters.onnx.arithmetic.int8 import StaticInt8
from exporters.onnx.graph import Graph, Name

Product = Callable[[Graph, Operand, Weight, Array, Name | None], Name]


class HalfInt8(Half):
    """Calibrated int8 in the products of the encoder's matrices, half precision between them."""

    def __init__(self, ranges: Mapping[str, float]) -> None:
        self._products = StaticInt8(ranges=ranges)

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """Quantised once for all products that read it."""
        return self._products.operand(g, self.wide(g, x), matrix)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One ``Gemm``; with a residual the sum is single."""
        return self._between(self._products.on_tokens, g, x_TK, weight, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product over the groups; with a residual the sum is single."""
        return self._between(self._products.on_features, g, x_BIS, weight, bias_N, residual)

    def _between(
        self, product: Product, g: Graph, x: Operand, weight: Weight, bias_N: Array,
        residual: Name | None,
    ) -> Name:  # fmt: skip
        """A product of single numbers among halves."""
        if residual is None:
            return self.narrow(g, product(g, x, weight, bias_N, None))
        return product(g, x, weight, bias_N, self.wide(g, residual))
