"""fp16 for GPUs: products in fp16, all other operators in fp32.

The types are in the graph, as strongly typed networks (TensorRT 11) need them: input and weight of
a product are fp16, and its result is cast to fp32 before a sum can overflow.
"""

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.arithmetic.arithmetic import Array, Float32Activations, Operand, Weight
from exporters.onnx.arithmetic.float32 import added, batched
from exporters.onnx.graph import Graph, Name

FLOAT16, FLOAT = 10, 1  # of TensorProto


class Float16(Float32Activations):
    """fp16 in the products with the encoder's matrices."""

    packs = False

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` in fp16, cast once for all products that read it."""
        return Operand(values=g.once("Cast", x, to=FLOAT16))

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A product with the transposed weight, then bias and residual in fp32."""
        values_NK = g.weight(f"{weight.name}.weight", to_fp16(weight.values_GRJ[0]))
        y = g.op("Cast", g.op("MatMul", x_TK.values, g.transpose(values_NK, 1, 0)), to=FLOAT)
        return added(g, y, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One batched product over the groups, then bias and residual in fp32."""
        values = g.weight(f"{weight.name}.weight", to_fp16(weight.values_GRJ[None]))
        y = g.op("Cast", batched(g, values, x_BIS.values, weight), to=FLOAT)
        return added(g, y, bias_N[:, None], residual)


def to_fp16(values: Array) -> NDArray[np.float16]:
    """The values in fp16; those that would be infinite are clipped to its largest number."""
    most = float(np.finfo(np.float16).max)
    return np.clip(values, -most, most).astype(np.float16)
