"""Whether TensorRT runs each sparse matrix on a sparse kernel, and how much time that saves.

The questions, in order; the first "no" is the verdict: do the stored weights satisfy 2:4, has the
product a type that sparse kernels take, is the matrix eligible, did TensorRT choose a sparse
kernel, and is that faster than the same layer in the dense build. Only the name of a kernel proves
that it is sparse: weights that the inspector calls sparse may run on a dense kernel. Where a fused
region hides its kernels, the verdict is "unknown".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporters.tensorrt.inspector import Layer
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.sessions.tensorrt.build_plan import PlannedMatrix
from spd_deploy.sessions.tensorrt.engine_record import SparseTactic, Verdict

# Noise of the time of one layer, relative: a smaller difference is reported as none.
_NOISE = 0.02
_OPERAND_TYPES = ("fp16", "int8", "fp32", "bf16", "fp8")


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketProfile:
    """The layers of an engine in one bucket, and the seconds of each by its name."""

    layers: tuple[Layer, ...]
    seconds: Mapping[str, float]

    def layer_of(self, node: str) -> Layer | None:
        """The layer that runs an ONNX node; of several, the one whose kernel multiplies."""
        layers = [layer for layer in self.layers if layer.runs(node)]
        return max(layers, key=lambda layer: (layer.multiplies, bool(layer.tactic)), default=None)


def verdicts_of(
    matrices: Iterable[PlannedMatrix],
    sparse: Sequence[BucketProfile],
    dense: Sequence[BucketProfile] | None,
) -> tuple[Verdict, ...]:
    """A verdict for each matrix in each bucket; ``dense`` is None without a dense engine."""
    return tuple(
        verdict_of(matrix, number, seen, None if dense is None else dense[number])
        for matrix in matrices
        for number, seen in enumerate(sparse)
    )


def verdict_of(
    matrix: PlannedMatrix, bucket: int, sparse: BucketProfile, dense: BucketProfile | None
) -> Verdict:
    """The verdict on one matrix in one bucket."""
    layer = sparse.layer_of(matrix.onnx_node) if matrix.onnx_node else None
    precision = product_type(layer)
    sparse_s, dense_s = _times(matrix, layer, sparse, dense)
    tactic = _sparse_tactic(matrix, layer)
    return Verdict(
        matrix=matrix.name,
        bucket=bucket,
        two_of_four=matrix.two_of_four,
        precision=precision,
        eligible=matrix.eligible,
        sparse_tactic=tactic,
        tactic=None if layer is None else layer.tactic,
        sparse_s=sparse_s,
        dense_s=dense_s,
        reason=_reason(matrix, layer, tactic, sparse_s, dense_s),
    )


def prove_precision(matrices: Iterable[PlannedMatrix], seen: Sequence[BucketProfile]) -> str:
    """Verify in the engine itself that products run in the planned precision.

    The name of a kernel proves or disproves it. Inputs of the planned type prove it too. Inputs of
    another type do not disprove it, since a fused kernel may cast what it reads.

    Returns:
        A phrase that says for how many products it is proved; fused regions prove nothing.

    Raises:
        VerificationFailed: a product provably runs in another precision.
    """
    rows = [matrix for matrix in matrices if matrix.onnx_node]
    proven = 0
    for matrix in rows:
        layers = [one.layer_of(matrix.onnx_node) for one in seen]
        for layer in layers:
            kernel = None if layer is None else layer.kernel_type
            if kernel not in (None, matrix.precision):
                raise VerificationFailed(
                    f"{matrix.name} runs in {kernel} in the engine, not in {matrix.precision}",
                    got=None if layer is None else layer.tactic,
                    fix="the engine was not kept; please report this, with TensorRT's version",
                )
        proven += all(product_type(layer) == matrix.precision for layer in layers)
    return (
        f"{proven} of {len(rows)} products provably in {rows[0].precision}"
        if rows
        else "no products"
    )


def product_type(layer: Layer | None) -> str | None:
    """The precision that a layer multiplies in, by its kernel's name, else by its inputs.

    None where the inputs disagree, or a fused region hides them.
    """
    if layer is None or layer.opaque:
        return None
    types = {one for one in layer.inputs if one in _OPERAND_TYPES}
    return layer.kernel_type or (types.pop() if len(types) == 1 else None)


def _sparse_tactic(matrix: PlannedMatrix, layer: Layer | None) -> SparseTactic:
    """Whether a sparse kernel runs the matrix."""
    if not matrix.eligible:
        return "no"
    if layer is None or layer.opaque:
        return "unknown"
    if layer.sparse:
        return "yes"
    return "no" if layer.multiplies else "unknown"


def _times(
    matrix: PlannedMatrix, layer: Layer | None, sparse: BucketProfile, dense: BucketProfile | None
) -> tuple[float | None, float | None]:
    """The seconds of the layer, and of the layer of the dense build that does the same work.

    Where the two builds fused the product with different nodes, they cannot be compared.
    """
    sparse_s = None if layer is None else sparse.seconds.get(layer.name)
    other = None if dense is None else dense.layer_of(matrix.onnx_node)
    if dense is None or layer is None or other is None:
        return sparse_s, None
    alike = set(layer.nodes) == set(other.nodes) if layer.nodes else layer.name == other.name
    return sparse_s, dense.seconds.get(other.name) if alike else None


def _reason(
    matrix: PlannedMatrix,
    layer: Layer | None,
    tactic: SparseTactic,
    sparse_s: float | None,
    dense_s: float | None,
) -> str:
    """The verdict as a phrase that ``spd inspect`` shows."""
    if not matrix.eligible:
        return f"not eligible: {matrix.reason}"
    if tactic == "unknown":
        return f"unknown: {_hidden(layer)}"
    if tactic == "no":
        flagged = layer is not None and layer.weights_sparse
        note = "; its weights are flagged sparse, which proves nothing" if flagged else ""
        return f"eligible, but TensorRT chose a dense kernel{note}"
    shared = 0 if layer is None else layer.products - 1
    runs = f"a sparse kernel runs it{f' and {shared} more' if shared > 0 else ''}"
    if sparse_s is None or dense_s is None:
        return f"{runs}; no layer of the dense build does the same work, so no gain is known"
    gain = dense_s / sparse_s
    if abs(gain - 1) <= _NOISE:
        return f"{runs}, as fast as the dense kernel"
    verb = "faster" if gain > 1 else "slower"
    return f"{runs}, {max(gain, 1 / gain):.2f}x {verb} than the dense kernel"


def _hidden(layer: Layer | None) -> str:
    """Why the kernel that runs a matrix is unknown."""
    if layer is None:
        return "no layer of the engine says that it runs this matrix"
    if layer.tactic and not layer.opaque:
        return f"the name of its kernel, {_cut(layer.tactic)}, does not say how it multiplies"
    return f"it is in a fused region, {_cut(layer.name)}, which hides its kernels"


def _cut(name: str) -> str:
    """The first 60 characters of a long name."""
    return name if len(name) <= 60 else f"{name[:57]}..."
