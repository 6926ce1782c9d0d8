"""Operators that are fused in ONNX Runtime, and made of standard operators elsewhere.

Each function computes the same for all targets. Fused operators save passes over memory, which take
most of a sparse model's time.
"""

from collections.abc import Callable

from exporters.onnx.graph import MICROSOFT, Graph, Name, Target

Scalar = Callable[[Graph, float], Name]


def gelu(g: Graph, x: Name, *, tanh: bool = False, scalar: Scalar = Graph.scalar) -> Name:
    """The exact Gelu, or its approximation by tanh (Hendrycks and Gimpel 2016).

    ``scalar`` makes scalars of the type of ``x``.
    """
    if g.target is Target.ONNXRUNTIME:
        return g.op("Gelu", x, approximate="tanh") if tanh else g.op("Gelu", x)
    half = g.op("Mul", x, scalar(g, 0.5))
    if tanh:
        cube = g.op("Mul", g.op("Mul", x, x), x)
        inner = g.op("Add", x, g.op("Mul", cube, scalar(g, 0.044715)))
        curve = g.op("Tanh", g.op("Mul", inner, scalar(g, (2 / 3.141592653589793) ** 0.5)))
    else:
        curve = g.op("Erf", g.op("Mul", x, scalar(g, 2**-0.5)))
    return g.op("Mul", half, g.op("Add", curve, scalar(g, 1.0)))


def silu(g: Graph, x: Name) -> Name:
    """``x`` times its sigmoid, in the type of ``x`` (Elfwing et al. 2018)."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def product(
    g: Graph,
    a: Name,
    b: Name,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    axes: int = 4,
    scale: float = 1.0,
    scalar: Scalar = Graph.scalar,
) -> Name:
    """``scale`` a b over the last two axes, each transposed first where that is asked for.

    Both have so many ``axes``. ``scalar`` makes scalars of the type of ``a``.
    """
    if g.target is Target.ONNXRUNTIME:
        transposes = {"transA": int(transpose_a), "transB": int(transpose_b)}
        return g.op("FusedMatMul", a, b, domain=MICROSOFT, alpha=scale, **transposes)
    if scale != 1.0:  # scaling an operand is cheaper than scaling the product, which is larger
        a = g.op("Mul", a, scalar(g, scale))
    swapped = (*range(axes - 2), axes - 1, axes - 2)
    a = g.transpose(a, *swapped) if transpose_a else a
    b = g.transpose(b, *swapped) if transpose_b else b
    return g.op("MatMul", a, b)
