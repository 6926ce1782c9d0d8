"""All the ways in which each matrix of a checkpoint can be run, before one of them is chosen.

First ``compact``: heads and neurons that are wholly zero go, in every pattern. What remains can run
dense, and where it has blocks, gathered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Lowering
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block, Pattern, Structured

# All of the matrix dense; what is left of it dense; what is left of it gathered.
LoweringName = Literal["dense", "compact", "gathered"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """How one matrix can be run.

    Attributes:
        left: its heads or neurons that are left, in words; empty where it has them all.
        lowerings: by way; ``dense`` is always among them.
    """

    matrix: Matrix
    pattern: Pattern | None
    left: str
    lowerings: Mapping[LoweringName, Lowering]

    @property
    def plain(self) -> LoweringName:
        """The way without gathering."""
        return "compact" if "compact" in self.lowerings else "dense"

    @property
    def timed(self) -> bool:
        """Whether there is something to time: more than one way, and weights that are left."""
        plain = self.lowerings[self.plain]
        return len(self.lowerings) > 1 and plain.inputs * plain.outputs > 0


def candidates_of(checkpoint: Checkpoint, weights: ClassifierWeights) -> dict[str, Candidates]:
    """The ways of every prunable matrix, by its name, in network order."""
    found: dict[str, Candidates] = {}
    for group in checkpoint.encoder.coupled():
        found |= _ways_of_group(checkpoint, weights, group)
    return {m.name: found[m.name] for m in checkpoint.encoder.matrices()}


def _ways_of_group(
    checkpoint: Checkpoint, weights: ClassifierWeights, group: Sequence[Matrix]
) -> dict[str, Candidates]:
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
        whole = bool(left_L.all())
        found[matrix.name] = Candidates(
            matrix=matrix,
            pattern=pattern,
            left=said if not whole or isinstance(pattern, Structured) else "",
            lowerings=_lowerings(weights, matrix, pattern, None if whole else (lines[0], lines[1])),
        )
    return found


def _lowerings(
    weights: ClassifierWeights,
    matrix: Matrix,
    pattern: Pattern | None,
    lines: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> dict[LoweringName, Lowering]:
    """A matrix in each way; ``lines`` are the rows and columns that are left, None for all."""
    whole_NK = weights.of(matrix)
    found: dict[LoweringName, Lowering] = {"dense": Dense.of(matrix, whole_NK)}
    part_NK = whole_NK if lines is None else whole_NK[np.ix_(*lines)]
    if lines is not None:
        left = Dense.of(matrix, part_NK)
        found["compact"] = Compact.of(matrix, left, rows=lines[0], columns=lines[1])
    if isinstance(pattern, Block) and part_NK.size:
        gathered = Gathered.of(matrix, part_NK, pattern)
        found["gathered"] = (
            gathered
            if lines is None
            else Compact.of(matrix, gathered, rows=lines[0], columns=lines[1])
        )
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
