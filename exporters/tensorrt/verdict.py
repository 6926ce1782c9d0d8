"""What became of each sparse matrix in an engine, and what that gained: as far as can be known.

A chain of questions, of which the first "no" is the answer: does the pattern hold in what is
stored, is the product typed for it, is it eligible, was a sparse kernel picked, and was that faster
than the same layer in the dense build. A kernel is sparse by its name alone: what the inspector
calls sparse weights may run on a dense kernel. Where a region is fused and hides its kernels, the
answer is that nobody knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporters.tensorrt.inspector import Layer
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.sessions.tensorrt.build_plan import PlannedMatrix
from spd_deploy.sessions.tensorrt.engine_record import SparseTactic, Verdict

# How much faster a layer must be to be called so: single layers are timed with that much noise.
_NOISE = 0.02
_OPERAND_TYPES = ("fp16", "int8", "fp32", "bf16", "fp8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was seen of a build in one bucket: its layers, and how long each took by its name."""

    layers: tuple[Layer, ...]
    seconds: Mapping[str, float]

    def layer_of(self, node: str) -> Layer | None:
        """The layer that runs an ONNX node; of several, the one whose kernel multiplies."""
        found = [layer for layer in self.layers if layer.runs(node)]
        return max(found, key=lambda layer: (layer.multiplies, bool(layer.tactic)), default=None)


def verdicts_of(
    matrices: Iterable[PlannedMatrix], sparse: Sequence[Seen], dense: Sequence[Seen] | None
) -> tuple[Verdict, ...]:
    """A verdict for each matrix in each bucket; ``dense`` is None where no such build was made."""
    return tuple(
        verdict_of(matrix, number, seen, None if dense is None else dense[number])
        for matrix in matrices
        for number, seen in enumerate(sparse)
    )


def verdict_of(matrix: PlannedMatrix, bucket: int, sparse: Seen, dense: Seen | None) -> Verdict:
    """What became of one matrix in one bucket."""
    layer = sparse.layer_of(matrix.product) if matrix.product else None
    typed = typed_of(layer)
    ours, theirs = _times(matrix, layer, sparse, dense)
    picked = _picked(matrix, layer)
    return Verdict(
        matrix=matrix.name,
        bucket=bucket,
        two_of_four=matrix.two_of_four,
        typed=typed,
        eligible=matrix.eligible,
        picked=picked,
        tactic=None if layer is None else layer.tactic,
        sparse_s=ours,
        dense_s=theirs,
        why=_why(matrix, layer, picked, ours, theirs),
    )


def refuse_other_precision(matrices: Iterable[PlannedMatrix], seen: Sequence[Seen]) -> str:
    """Prove from the engine itself that products run in the precision that was planned.

    A kernel's name proves it either way. Inputs of the planned type prove it too, but inputs of
    another do not disprove it: a fused kernel may cast what it reads.

    Returns:
        How many of them the engine proves it of, in words: fused regions prove nothing.

    Raises:
        VerificationFailed: one provably runs in another.
    """
    rows = [matrix for matrix in matrices if matrix.product]
    proven = 0
    for matrix in rows:
        layers = [one.layer_of(matrix.product) for one in seen]
        for layer in layers:
            kernel = None if layer is None else layer.kernel_type
            if kernel not in (None, matrix.typed):
                raise VerificationFailed(
                    f"{matrix.name} runs in {kernel} in the engine, not in {matrix.typed}",
                    got=None if layer is None else layer.tactic,
                    fix="the engine was not kept; please report this, with TensorRT's version",
                )
        proven += all(typed_of(layer) == matrix.typed for layer in layers)
    return (
        f"{proven} of {len(rows)} products provably in {rows[0].typed}" if rows else "no products"
    )


def typed_of(layer: Layer | None) -> str | None:
    """In what precision a layer multiplies: by its kernel's name, else by what its inputs agree on.

    None where a fused region hides it.
    """
    if layer is None or layer.opaque:
        return None
    read = {found for found in layer.inputs if found in _OPERAND_TYPES}
    return layer.kernel_type or (read.pop() if len(read) == 1 else None)


def _picked(matrix: PlannedMatrix, layer: Layer | None) -> SparseTactic:
    """Whether a sparse kernel runs the matrix."""
    if not matrix.eligible:
        return "no"
    if layer is None or layer.opaque:
        return "unknown"
    if layer.sparse:
        return "yes"
    return "no" if layer.multiplies else "unknown"


def _times(
    matrix: PlannedMatrix, layer: Layer | None, sparse: Seen, dense: Seen | None
) -> tuple[float | None, float | None]:
    """The layer's time, and that of the layer in the dense build that does the same work.

    Where the builds fused the product with different nodes, the two do not compare.
    """
    ours = None if layer is None else sparse.seconds.get(layer.name)
    other = None if dense is None else dense.layer_of(matrix.product)
    if dense is None or layer is None or other is None:
        return ours, None
    alike = set(layer.nodes) == set(other.nodes) if layer.nodes else layer.name == other.name
    return ours, dense.seconds.get(other.name) if alike else None


def _why(
    matrix: PlannedMatrix,
    layer: Layer | None,
    picked: SparseTactic,
    ours: float | None,
    theirs: float | None,
) -> str:
    """The outcome in words."""
    if not matrix.eligible:
        return f"not eligible: {matrix.why}"
    if picked == "unknown":
        return f"unknown: {_hidden(layer)}"
    if picked == "no":
        flagged = layer is not None and layer.weights_sparse
        noted = "; its weights are flagged sparse, which proves nothing" if flagged else ""
        return f"eligible, but TensorRT took a dense kernel{noted}"
    shared = 0 if layer is None else layer.products - 1
    runs = f"a sparse kernel runs it{f' and {shared} more' if shared > 0 else ''}"
    if ours is None or theirs is None:
        return f"{runs}; no layer of the dense build compares with it"
    gain = theirs / ours
    if abs(gain - 1) <= _NOISE:
        return f"{runs}, as fast as the dense build's"
    verb = "faster" if gain > 1 else "slower"
    return f"{runs}, {max(gain, 1 / gain):.2f}x {verb} than the dense build's"


def _hidden(layer: Layer | None) -> str:
    """Why nobody knows which kernel runs a matrix."""
    if layer is None:
        return "no layer of the engine tells that it runs it"
    if layer.tactic and not layer.opaque:
        return f"its kernel, {_cut(layer.tactic)}, does not tell by its name how it multiplies"
    return f"it is in a fused region, {_cut(layer.name)}, which hides its kernels"


def _cut(name: str) -> str:
    """The beginning of a long name."""
    return name if len(name) <= 60 else f"{name[:57]}..."
