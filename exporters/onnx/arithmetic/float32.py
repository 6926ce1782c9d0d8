"""fp32: in ONNX Runtime's fused operators, which save passes over memory, or in portable ones."""

from exporters.onnx.arithmetic.arithmetic import Array, Float32Activations, Operand, Weight
from exporters.onnx.graph import MICROSOFT, Graph, Name, Target


class Float32(Float32Activations):
    """Products in fp32; a weight with many zeros may be packed."""

    packs = True

    def operand(self, g: Graph, x: Name, matrix: str) -> Operand:
        """``x`` itself: fp32 products take their input as it is."""
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
        """A convolution of width 1 with G groups, which adds bias and residual while it writes.

        OpenVINO has no fast kernel for that, so the portable graph has a batched product instead.
        """
        name = f"{weight.name}.weight"
        G, R, J = weight.values_GRJ.shape
        if g.target is not Target.ONNXRUNTIME:
            y = batched(g, g.weight(name, weight.values_GRJ[None]), x_BIS.values, weight)
            return added(g, y, bias_N[:, None], residual)
        kernel = g.weight(name, weight.values_GRJ.reshape(G * R, J, 1))
        inputs = [x_BIS.values, kernel, g.constant(bias_N)]
        if residual is None:
            return g.op("Conv", *inputs, group=G, kernel_shape=[1])
        inputs.append(residual)
        return g.op("FusedConv", *inputs, domain=MICROSOFT, group=G, kernel_shape=[1])


def gemm(g: Graph, x_TK: Name, values_NK: Name, bias_N: Array, residual: Name | None) -> Name:
    """``x W^T`` with bias and residual, in one ``Gemm``."""
    addends = [] if residual is None else [residual]
    if bias_N.any():
        addends = [g.op("Add", *addends, g.constant(bias_N)) if addends else g.constant(bias_N)]
    return g.op("Gemm", x_TK, values_NK, *addends, transB=1)


def batched(g: Graph, values_GRJ: Name, x_BIS: Name, weight: Weight) -> Name:
    """One batched product with the values ``[1, G, R, J]`` of ``weight``; gives ``[B, N, S]``."""
    G, R, J = weight.values_GRJ.shape
    y_BGRS = g.op("MatMul", values_GRJ, g.reshape(x_BIS, 0, G, J, -1))
    return g.reshape(y_BGRS, 0, G * R, -1)


def added(g: Graph, y: Name, bias: Array, residual: Name | None) -> Name:
    """``y`` with bias and residual, each in a pass of its own; ``bias`` broadcasts to ``y``.

    A bias of zeros is left out.
    """
    y = g.op("Add", y, g.constant(bias)) if bias.any() else y
    return y if residual is None else g.op("Add", y, residual)
