"""Operators that are written otherwise for ONNX Runtime than in the standard's own terms.

Each function emits the same arithmetic for both targets. What the fused forms save is passes over
memory, which is where a sparse model spends its time.
"""

from collections.abc import Callable

from exporters.onnx.graph import MICROSOFT, Graph, Name, Target

Number = Callable[[Graph, float], Name]


def gelu(g: Graph, x: Name, *, tanh: bool = False, number: Number = Graph.number) -> Name:
    """The exact Gelu, or its approximation by tanh (Hendrycks and Gimpel 2016).

    ``number`` makes scalars of the type of ``x``.
    """
    if g.target is Target.ONNXRUNTIME:
        return g.op("Gelu", x, approximate="tanh") if tanh else g.op("Gelu", x)
    half = g.op("Mul", x, number(g, 0.5))
    if tanh:
        cube = g.op("Mul", g.op("Mul", x, x), x)
        inner = g.op("Add", x, g.op("Mul", cube, number(g, 0.044715)))
        bent = g.op("Tanh", g.op("Mul", inner, number(g, (2 / 3.141592653589793) ** 0.5)))
    else:
        bent = g.op("Erf", g.op("Mul", x, number(g, 2**-0.5)))
    return g.op("Mul", half, g.op("Add", bent, number(g, 1.0)))


def product(
    g: Graph,
    a: Name,
    b: Name,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    scale: float = 1.0,
    number: Number = Graph.number,
) -> Name:
    """``scale`` a b over the last two of four axes, either turned round first.

    ``number`` makes scalars of the type of ``a``.
    """
    if g.target is Target.ONNXRUNTIME:
        turned = {"transA": int(transpose_a), "transB": int(transpose_b)}
        return g.op("FusedMatMul", a, b, domain=MICROSOFT, alpha=scale, **turned)
    if scale != 1.0:  # before the product: of its operands the first is small
        a = g.op("Mul", a, number(g, scale))
    a = g.transpose(a, 0, 1, 3, 2) if transpose_a else a
    b = g.transpose(b, 0, 1, 3, 2) if transpose_b else b
    return g.op("MatMul", a, b)
