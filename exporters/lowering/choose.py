"""Which lowering each matrix gets, and why: a pure function of its pattern and the weights.

Without a measurement on the target a cost model decides (``lowering.gathered``); the reason is
written down for ``spd inspect``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import LEAST_GAIN, Gathered
from exporters.weights import ClassifierWeights
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured

Lowering = Dense | Compact | Gathered

_EXCLUDED = "left dense: excluded from pruning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A matrix's lowering with the reason for it."""

    lowering: Lowering
    reason: str


def choose(checkpoint: Checkpoint, weights: ClassifierWeights) -> dict[str, Choice]:
    """A choice for every prunable matrix, by its name."""
    encoder, pattern = checkpoint.encoder, checkpoint.pattern
    if isinstance(pattern, Structured):
        groups = (_choose_group(checkpoint, weights, g, pattern) for g in encoder.coupled())
        return {name: choice for group in groups for name, choice in group.items()}
    return {m.name: _choose_one(checkpoint, m, weights.of(m)) for m in encoder.matrices()}


def _choose_one(checkpoint: Checkpoint, matrix: Matrix, weight_NK: NDArray[np.float32]) -> Choice:
    """The choice for a matrix that stands alone."""
    dense = Dense.of(matrix, weight_NK)
    pattern = checkpoint.pattern_of(matrix)
    match pattern:
        case None:
            reason = "dense weights" if checkpoint.pattern is None else _EXCLUDED
            return Choice(lowering=dense, reason=reason)
        case Unstructured():
            return Choice(
                lowering=dense,
                reason="unstructured: ONNX Runtime does not skip single zeros, it multiplies them",
            )
        case NM(n=n, m=m):
            return Choice(
                lowering=dense,
                reason=f"{n}:{m} needs sparse tensor cores: ONNX Runtime has no kernel for it, "
                "so its zeros are multiplied",
            )
        case Block():
            return _choose_block(matrix, weight_NK, pattern, dense)
        case Structured():
            raise AssertionError("structured matrices are chosen by the group")


def _choose_block(
    matrix: Matrix, weight_NK: NDArray[np.float32], block: Block, dense: Dense
) -> Choice:
    """Gathered where the cost model promises a gain."""
    gathered = Gathered.of(matrix, weight_NK, block)
    gain = gathered.expected_gain
    if gain < LEAST_GAIN:
        return Choice(
            lowering=dense,
            reason=f"gathered would be {gain:.1f}x the dense speed by the cost model: with "
            f"{block.rows} rows a block, copying the kept inputs costs more than it saves",
        )
    return Choice(
        lowering=gathered,
        reason=f"{block.rows} outputs at a time read the {gathered.flops_share:.0%} of inputs "
        f"they kept; the cost model promises {gain:.1f}x",
    )


def _choose_group(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    group: Sequence[Matrix],
    pattern: Structured,
) -> dict[str, Choice]:
    """Matrices that share heads or neurons, without those that are wholly zero.

    A head or neuron goes only where its rows and the columns that read them are all zero: rows that
    nothing reads could go as well, but then the artefact would not hold the checkpoint's weights.
    Where a matrix of the group is left dense, so are the heads or neurons of them all.
    """
    on = checkpoint.encoder.pattern_on
    sliced = [(m, p) for m in group if isinstance(p := on(m, pattern), Structured)]
    excluded = {m.name for m in group if checkpoint.pattern_of(m) is None}
    alive_U = np.logical_or.reduce([_alive(weights.of(m), p) for m, p in sliced])
    left_U = alive_U | bool(excluded)
    noun = "heads" if group[0].role == "query" else "neurons"
    reason = f"{left_U.sum()} of {len(left_U)} {noun} are left"
    found = {}
    for matrix, slices in sliced:
        if matrix.name in excluded:
            found[matrix.name] = _choose_one(checkpoint, matrix, weights.of(matrix))
            continue
        kept = np.flatnonzero(np.repeat(left_U, slices.width))
        lines = [np.arange(size) for size in matrix.shape]
        lines[slices.axis] = kept
        lowering = Compact.of(matrix, weights.of(matrix), rows=lines[0], columns=lines[1])
        found[matrix.name] = Choice(lowering=lowering, reason=reason)
    return found


def _alive(weight_NK: NDArray[np.float32], slices: Structured) -> NDArray[np.bool_]:
    """Which of a matrix's slices have anything but zeros."""
    alive_L: NDArray[np.bool_] = (weight_NK != 0).any(1 - slices.axis)
    return np.asarray(alive_L.reshape(-1, slices.width).any(1))
