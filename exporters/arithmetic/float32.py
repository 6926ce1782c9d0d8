"""fp32: for ONNX Runtime in its fused forms, which save passes over memory."""

from exporters.arithmetic.arithmetic import Array, Operand, Weight
from exporters.graph import MICROSOFT, Graph, Name, Target


class Float32:
    """Single precision throughout."""

    packs = True

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """As it is."""
        return Operand(values=x)

    def on_tokens(
        self, g: Graph, x_TK: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """One ``Gemm`` that adds bias and residual while it writes."""
        values_NK = g.weight(f"{weight.name}.weight", weight.values_GRJ[0])
        return gemm(g, x_TK.values, values_NK, bias_N, residual)

    def on_features(
        self, g: Graph, x_BIS: Operand, weight: Weight, bias_N: Array, residual: Name | None
    ) -> Name:
        """A convolution of width 1 with G groups, which takes bias and residual along.

        OpenVINO, for one, has no good kernel for that, so the portable form is a batched product.
        """
        name, x = f"{weight.name}.weight", x_BIS.values
        G, R, J = weight.values_GRJ.shape
        if g.target is Target.PORTABLE:
            values = g.weight(name, weight.values_GRJ[None])
            y = g.op("MatMul", values, g.reshape(x, 0, G, J, -1))
            return added(g, g.reshape(y, 0, G * R, -1), bias_N, residual)
        inputs = [x, g.weight(name, weight.values_GRJ.reshape(G * R, J, 1)), g.constant(bias_N)]
        if residual is None:
            return g.op("Conv", *inputs, group=G, kernel_shape=[1])
        inputs.append(residual)
        return g.op("FusedConv", *inputs, domain=MICROSOFT, group=G, kernel_shape=[1])


def gemm(g: Graph, x_TK: Name, values_NK: Name, bias_N: Array, residual: Name | None) -> Name:
    """``x W^T`` with bias and residual."""
    addend = g.constant(bias_N)
    if residual is not None:
        addend = g.op("Add", residual, addend)
    return g.op("Gemm", x_TK, values_NK, addend, transB=1)


def added(g: Graph, y_BNS: Name, bias_N: Array, residual: Name | None) -> Name:
    """Bias and residual on feature-major outputs."""
    y_BNS = g.op("Add", y_BNS, g.constant(bias_N[:, None]))
    return y_BNS if residual is None else g.op("Add", y_BNS, residual)
