"""The lowerings that each matrix of a checkpoint can have, before one of them is chosen.

Attention heads and feed-forward neurons whose weights are all zero are removed first, in every
pattern (``compact``). What remains of a matrix can be multiplied dense, and where it has blocks,
gathered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.lowering_names import LoweringName, ungathered_of
from spd_deploy.domain.models.architecture import FEED_FORWARD
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """The lowerings that one matrix can have.

    Attributes:
        remaining: says how many heads or neurons remain; empty where none was removed.
        lowerings: the lowerings by name; ``dense`` is always one of them.
    """

    matrix: Matrix
    pattern: Pattern | None
    remaining: str
    lowerings: Mapping[LoweringName, Lowering]

    @property
    def ungathered(self) -> LoweringName:
        """The best lowering that does not gather: ``compact`` where there is one, else dense."""
        return ungathered_of(self.lowerings)

    @property
    def worth_timing(self) -> bool:
        """Whether there is a choice to make: several lowerings, and weights that remain."""
        ungathered = self.lowerings[self.ungathered]
        return len(self.lowerings) > 1 and ungathered.inputs * ungathered.outputs > 0

    @property
    def group_rows(self) -> int:
        """How many outputs of a gathered product read the same inputs."""
        return int(self.lowerings["gathered"].values.shape[1])

    @property
    def kept_inputs(self) -> str:
        """A phrase that says which share of the inputs a gathered product reads."""
        gathered, ungathered = self.lowerings["gathered"], self.lowerings[self.ungathered]
        share = gathered.flops_share / ungathered.flops_share
        return f"each group of {self.group_rows} outputs reads only {share:.0%} of the inputs"

    def explain(self, reason: str) -> str:
        """The reason for a choice, after what remains of the matrix where something was removed."""
        return "; ".join(part for part in (self.remaining, reason) if part)

    def choose(self, lowering: LoweringName, reason: str) -> LoweringChoice:
        """The choice of one of the lowerings."""
        return LoweringChoice(lowering=self.lowerings[lowering], reason=self.explain(reason))


def candidates_of(checkpoint: Checkpoint, weights: ClassifierWeights) -> dict[str, Candidates]:
    """The candidates of every prunable matrix, by its name, in the order of the network."""
    candidates: dict[str, Candidates] = {}
    for group in checkpoint.encoder.coupled():
        candidates |= _candidates_of_group(checkpoint, weights, group)
    return {m.name: candidates[m.name] for m in checkpoint.encoder.matrices()}


def _candidates_of_group(
    checkpoint: Checkpoint, weights: ClassifierWeights, group: Sequence[Matrix]
) -> dict[str, Candidates]:
    """The candidates of matrices that share heads or neurons, which are removed from all at once.

    A head or neuron is removed only where its rows and the columns that read them are all zero.
    Rows that nothing reads could be removed as well, but then the artefact would not hold the
    checkpoint's weights. Where one matrix of the group was not pruned, nothing is removed.
    """
    remain_L = _remaining(checkpoint, weights, group)
    width, noun = _unit(checkpoint, group[0])
    remaining = f"{remain_L.sum() // width} of {len(remain_L) // width} {noun} are left"
    whole = bool(remain_L.all())
    candidates = {}
    for matrix in group:
        rows, columns = (np.arange(size) for size in matrix.shape)
        if _removal(checkpoint, matrix).axis == 0:
            rows = np.flatnonzero(remain_L)
        else:
            columns = np.flatnonzero(remain_L)
        pattern = checkpoint.pattern_of(matrix)
        candidates[matrix.name] = Candidates(
            matrix=matrix,
            pattern=pattern,
            remaining=remaining if not whole or _structured(pattern) else "",
            lowerings=_lowerings(weights, matrix, pattern, None if whole else (rows, columns)),
        )
    return candidates


def _lowerings(
    weights: ClassifierWeights,
    matrix: Matrix,
    pattern: Pattern | None,
    remaining: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> dict[LoweringName, Lowering]:
    """The lowerings of a matrix; ``remaining`` are rows and columns that remain, None for all."""
    whole_NK = weights.of(matrix)
    lowerings: dict[LoweringName, Lowering] = {"dense": Dense.of(matrix, whole_NK)}
    part_NK = whole_NK if remaining is None else whole_NK[np.ix_(*remaining)]

    def compact(inner: Lowering) -> Lowering:
        if remaining is None:
            return inner
        return Compact.of(matrix, inner, rows=remaining[0], columns=remaining[1])

    if remaining is not None:
        lowerings["compact"] = compact(Dense.of(matrix, part_NK))
    match pattern:
        case Block() if part_NK.size:
            lowerings["gathered"] = compact(Gathered.of(matrix, part_NK, pattern))
        case Block() | None | Unstructured() | NM() | Structured():
            pass
        case never:
            assert_never(never)
    return lowerings


def _structured(pattern: Pattern | None) -> bool:
    """Whether whole heads and neurons were removed."""
    return pattern is not None and pattern.structured


def _remaining(
    checkpoint: Checkpoint, weights: ClassifierWeights, group: Sequence[Matrix]
) -> NDArray[np.bool_]:
    """Which of the rows or columns that the matrices of a group share must remain, ``[L]``.

    Whole heads or neurons are removed. In a block pattern as many are removed together as fill
    whole blocks, so that what remains has blocks too.
    """
    patterns = [checkpoint.pattern_of(matrix) for matrix in group]
    width, _ = _unit(checkpoint, group[0])
    blocks = [pattern.block_shape for pattern in patterns if pattern is not None]
    run = math.lcm(width, *(size for block in blocks for size in block))
    nonzero_L = np.logical_or.reduce([_nonzero(checkpoint, weights, matrix) for matrix in group])
    if None in patterns or len(nonzero_L) % run:
        return np.ones_like(nonzero_L)
    return np.repeat(nonzero_L.reshape(-1, run).any(1), run)


def _nonzero(
    checkpoint: Checkpoint, weights: ClassifierWeights, matrix: Matrix
) -> NDArray[np.bool_]:
    """Which of a matrix's shared rows or columns have a weight that is not zero, ``[L]``."""
    other_axis = 1 - _removal(checkpoint, matrix).axis
    nonzero_L: NDArray[np.bool_] = (weights.of(matrix) != 0).any(other_axis)
    return nonzero_L


def _removal(checkpoint: Checkpoint, matrix: Matrix) -> Structured:
    """The axis along which the heads or neurons of a matrix lie, and the width of one."""
    pattern = checkpoint.encoder.pattern_on(matrix, Structured())
    assert isinstance(pattern, Structured)  # noqa: S101 - a structured pattern stays one
    return pattern


def _unit(checkpoint: Checkpoint, matrix: Matrix) -> tuple[int, str]:
    """How many rows or columns one head or neuron has, and the plural of its name."""
    width = _removal(checkpoint, matrix).width
    return width, "neurons" if matrix.role in FEED_FORWARD else "heads"
