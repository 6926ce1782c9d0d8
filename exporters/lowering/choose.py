"""Which lowering each matrix gets, and why: a pure function of its pattern and the weights.

First ``compact``: heads and neurons that are wholly zero go, in every pattern. What remains is
gathered where it has blocks and the cost model promises a gain, and dense otherwise. The reason is
written down for ``spd inspect``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.arithmetic.arithmetic import Array
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from exporters.weights import ClassifierWeights
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured

# A gathered product must promise at least this gain over the dense one to be chosen unmeasured.
LEAST_GAIN = 1.1

_EXCLUDED = "left dense: not pruned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A matrix's lowering with the reason for it."""

    lowering: Lowering
    reason: str


def choose(checkpoint: Checkpoint, weights: ClassifierWeights) -> dict[str, Choice]:
    """A choice for every prunable matrix, by its name."""
    found: dict[str, Choice] = {}
    for group in checkpoint.encoder.coupled():
        found |= _choose_group(checkpoint, weights, group)
    return {m.name: found[m.name] for m in checkpoint.encoder.matrices()}


def _choose_group(
    checkpoint: Checkpoint, weights: ClassifierWeights, group: Sequence[Matrix]
) -> dict[str, Choice]:
    """Matrices that share heads or neurons: those that are wholly zero go, together.

    A head or neuron goes only where its rows and the columns that read them are all zero: rows that
    nothing reads could go as well, but then the artefact would not hold the checkpoint's weights.
    Where a matrix of the group is left dense, so are the heads or neurons of them all.
    """
    left_L = _left(checkpoint, weights, group)
    width, noun = _unit(checkpoint, group[0])
    said = f"{left_L.sum() // width} of {len(left_L) // width} {noun} are left"
    found = {}
    for matrix in group:
        lines = [np.arange(size) for size in matrix.shape]
        lines[_slices(checkpoint, matrix).axis] = np.flatnonzero(left_L)
        pattern = checkpoint.pattern_of(matrix)
        part_NK = weights.of(matrix)[np.ix_(*lines)]
        left, reason = _choose_one(matrix, part_NK, pattern, sparse=checkpoint.pattern is not None)
        lowering: Lowering = left
        if not left_L.all():
            lowering = Compact.of(matrix, left, rows=lines[0], columns=lines[1])
            reason = f"{said}; {reason}"
        if isinstance(pattern, Structured):
            reason = said
        found[matrix.name] = Choice(lowering=lowering, reason=reason)
    return found


def _left(
    checkpoint: Checkpoint, weights: ClassifierWeights, group: Sequence[Matrix]
) -> NDArray[np.bool_]:
    """Which rows, or columns, that the matrices of a group share must stay, ``[L]``.

    They go by the head or neuron, and in a block pattern by as many as fill whole blocks, so that
    what remains has blocks too.
    """
    patterns = [checkpoint.pattern_of(matrix) for matrix in group]
    width, _ = _unit(checkpoint, group[0])
    blocks = [(p.rows, p.columns) for p in patterns if isinstance(p, Block)]
    run = math.lcm(width, *(size for block in blocks for size in block))
    alive_L = np.logical_or.reduce([_alive(checkpoint, weights, matrix) for matrix in group])
    if None in patterns or len(alive_L) % run:
        return np.ones_like(alive_L)
    return np.repeat(alive_L.reshape(-1, run).any(1), run)


def _alive(checkpoint: Checkpoint, weights: ClassifierWeights, matrix: Matrix) -> NDArray[np.bool_]:
    """Which of a matrix's shared rows or columns have anything but zeros."""
    alive_L: NDArray[np.bool_] = (weights.of(matrix) != 0).any(1 - _slices(checkpoint, matrix).axis)
    return alive_L


def _slices(checkpoint: Checkpoint, matrix: Matrix) -> Structured:
    """Along which axis the heads or neurons of a matrix lie, and how wide they are."""
    found = checkpoint.encoder.pattern_on(matrix, Structured())
    assert isinstance(found, Structured)  # noqa: S101 - of a structured pattern it makes another
    return found


def _unit(checkpoint: Checkpoint, matrix: Matrix) -> tuple[int, str]:
    """How many lines go together, and what they are called."""
    width = _slices(checkpoint, matrix).width
    return width, "neurons" if matrix.role in ("intermediate", "output") else "heads"


def _choose_one(
    matrix: Matrix, weight_NK: Array, pattern: Pattern | None, *, sparse: bool
) -> tuple[Dense | Gathered, str]:
    """The lowering of what is left of a matrix, and the reason for it."""
    dense = Dense.of(matrix, weight_NK)
    match pattern:
        case None:
            return dense, _EXCLUDED if sparse else "dense weights"
        case Unstructured():
            return dense, (
                "unstructured: ONNX Runtime does not skip single zeros, it multiplies them"
            )
        case NM(n=n, m=m):
            return dense, (
                f"{n}:{m} needs sparse tensor cores: ONNX Runtime has no kernel for it, "
                "so its zeros are multiplied"
            )
        case Block():
            return _choose_block(matrix, weight_NK, pattern, dense)
        case Structured():
            return dense, ""


def _choose_block(
    matrix: Matrix, weight_NK: Array, block: Block, dense: Dense
) -> tuple[Dense | Gathered, str]:
    """Gathered where the cost model promises a gain."""
    if not weight_NK.size:
        return dense, "nothing is left to multiply"
    gathered = Gathered.of(matrix, weight_NK, block)
    gain = dense.cost.seconds / gathered.cost.seconds
    if gain < LEAST_GAIN:
        return dense, (
            f"gathered would be {gain:.1f}x the dense speed by the cost model: with "
            f"{block.rows} rows a block, copying the kept inputs costs more than it saves"
        )
    return gathered, (
        f"{block.rows} outputs at a time read the {gathered.flops_share:.0%} of inputs "
        f"they kept; the cost model promises {gain:.1f}x"
    )
