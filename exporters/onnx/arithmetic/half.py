"""fp16 as GPUs like it: everything between operators is half, what could overflow is single.

Products, biases, activations and what is kept of a token are half, so half the bytes move, and
tensor cores multiply attention too. Softmax, the sum of a layer's part with its residual, and the
norm of that sum are single: they are fused into one pass over memory either way, which reads and
writes halves. So a number is infinite only where one product by itself is above 65504; an export in
which one is, on the golden inputs, is refused (``exporters.tensorrt.fp16_range``).
"""

import numpy as np

from exporters.onnx.arithmetic.arithmetic import Array, Operand, Weight
from exporters.onnx.arithmetic.float16 import HALF, SINGLE, halved
from exporters.onnx.arithmetic.float32 import batched
from exporters.onnx.graph import Graph, Name


class Half:
    """Half precision between operators."""

    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """As it is: half already."""
        return Operand(values=x)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A product with the weight turned round; with a residual the sum is single."""
        values_NK = g.weight(f"{weight.name}.weight", halved(weight.values_GRJ[0]))
        y = g.op("MatMul", x_TK.values, g.transpose(values_NK, 1, 0))
        return self._added(g, y, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product over the groups; with a residual the sum is single."""
        values = g.weight(f"{weight.name}.weight", halved(weight.values_GRJ[None]))
        return self._added(g, batched(g, values, x_BIS.values, weight), bias_N[:, None], residual)

    def narrow(self, g: Graph, x: Name) -> Name:
        """To half."""
        return g.op("Cast", x, to=HALF)

    def wide(self, g: Graph, x: Name) -> Name:
        """To single, once for all that read it."""
        return g.once("Cast", x, to=SINGLE)

    def number(self, g: Graph, value: float) -> Name:
        """A scalar of half."""
        return g.constant(np.array(value, np.float16))

    def _added(self, g: Graph, y: Name, bias: Array, residual: Name | None) -> Name:
        """The bias in half, the residual in single."""
        y = g.op("Add", y, g.constant(halved(bias)))
        return y if residual is None else g.op("Add", self.wide(g, y), self.wide(g, residual))
