"""Which pattern the zeros of an encoder's matrices form, where nothing declares one.

A model that another tool made sparse says so in its weights alone. Four readings of the zeros are
tried, and the one under which most weights can be skipped as a whole is taken:

    structured      heads and neurons that are zero in every matrix that shares them
    block:RxC       zeros that fill whole blocks; the tallest blocks, then the widest, that fit
    N:M             no more than N non-zeros in any M consecutive inputs of an output
    unstructured    what is left: zeros at no regular places

Every matrix gets a goal of its own, the sparsity at which the pattern holds on it as it is, so that
an export can verify it. For blocks that is set by the fullest group of rows.

G counts groups of rows, U what stands or falls together in one (blocks, heads, neurons).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured

Mask = NDArray[np.bool_]
Sparse = Mapping[Matrix, Mask]

# Fewer zeros than this are no sparsity: a few weights of a dense model happen to be zero, and
# skipping so few gains nothing. It holds for a matrix as for the encoder.
MIN_ZEROS = 0.05
# The share of a pattern's zeros, and of its other weights, that may be out of place: a weight that
# a pattern keeps may happen to be zero.
MISPLACED = 0.01
_LARGEST_M = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """The pattern that the zeros of an encoder form.

    Attributes:
        densities: share of non-zeros by matrix name.
        pattern: None where there are too few zeros to speak of.
        sparsities: the goal of each matrix by name; 0 leaves it dense.
        reason: what was found, and what else was considered, in words.
    """

    densities: Mapping[str, float]
    pattern: Pattern | None = None
    sparsities: Mapping[str, float] = field(default_factory=dict)
    reason: str = f"no matrix has more than {MIN_ZEROS:.0%} zeros"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One way to read the zeros: a pattern if it fits, its goals, and what could be skipped.

    Attributes:
        skipped: share of the sparse matrices' weights that lie in what is zero as a whole.
    """

    reason: str
    pattern: Pattern | None = None
    goals: Mapping[str, float] = field(default_factory=dict)
    skipped: float = 0.0


def detect(encoder: Encoder, nonzeros: Iterable[tuple[Matrix, Mask]]) -> Detection:
    """The pattern of matrices that are non-zero at the given places.

    Args:
        encoder: says which slices of which matrices belong together.
        nonzeros: every prunable matrix with a mask ``[N, K]``; masks of dense ones are let go.
    """
    densities: dict[str, float] = {}
    sparse: dict[Matrix, Mask] = {}
    for matrix, mask_NK in nonzeros:
        densities[matrix.name] = np.count_nonzero(mask_NK) / mask_NK.size
        if densities[matrix.name] <= 1 - MIN_ZEROS:
            sparse[matrix] = mask_NK
    if not sparse:
        return Detection(densities=densities)
    found, *others = _readings(encoder, sparse)
    return Detection(
        densities=densities,
        pattern=found.pattern,
        sparsities={name: found.goals.get(name, 0.0) for name in densities},
        reason=f"{found.reason}; considered: {'; '.join(r.reason for r in others)}",
    )


def _readings(encoder: Encoder, sparse: Sparse) -> list[Reading]:
    """The readings that were tried, the best first.

    A reading that saves most wins, the more special one where they save the same. N:M saves
    nothing unless a kernel is made for it, so it comes after those that any runtime profits from.
    """
    special = [_as_structured(encoder, sparse), _as_block(sparse)]
    special.sort(key=lambda reading: -reading.skipped)
    if special[0].skipped >= MIN_ZEROS:
        return special
    n_of_m = _as_n_of_m(sparse)
    if n_of_m.pattern is not None:
        return [n_of_m, *special]
    return [_as_unstructured(sparse), *special, n_of_m]


def _as_structured(encoder: Encoder, sparse: Sparse) -> Reading:
    """Heads and neurons that are zero in all the matrices that share them."""
    goals: dict[str, float] = {}
    skipped = 0.0
    for group in encoder.coupled():
        slices = [
            p for m in group if isinstance(p := encoder.pattern_on(m, Structured()), Structured)
        ]
        count = group[0].shape[0] // slices[0].width
        left = count
        if all(m in sparse for m in group):
            alive = [_alive_slices(sparse[m], s) for m, s in zip(group, slices, strict=True)]
            left = int(np.logical_or.reduce(alive).sum())
        for matrix in (m for m in group if m in sparse):
            goals[matrix.name] = _goal(left, count)
            skipped += _size(matrix) * (1 - left / count)
    share = skipped / _size(*sparse)
    return Reading(
        pattern=Structured(sparsity=_mean(goals, sparse)),
        goals=goals,
        skipped=share,
        reason=f"heads and neurons that are zero as a whole hold {share:.0%} of the weights",
    )


def _as_block(sparse: Sparse) -> Reading:
    """The tallest blocks that the zeros fill, and of these the widest."""
    rows = next(r for r in _divisors(sparse, 0) if r == 1 or _fits(sparse, r, 1))
    columns = next(c for c in _divisors(sparse, 1) if c == 1 or _fits(sparse, rows, c))
    if rows * columns == 1:
        return Reading(reason="zeros fill no blocks")
    counts = {m: _alive_blocks(mask, rows, columns).sum(1).max() for m, mask in sparse.items()}
    goals = {m.name: _goal(int(k), m.shape[1] // columns) for m, k in counts.items()}
    saved = sum(_size(m) * (1 - int(k) * columns / m.shape[1]) for m, k in counts.items())
    share = saved / _size(*sparse)
    block = Block(rows=rows, columns=columns, sparsity=_mean(goals, sparse))
    return Reading(
        pattern=block,
        goals=goals,
        skipped=share,
        reason=f"zeros fill {block}, of which the fullest groups of outputs skip {share:.0%}",
    )


def _as_n_of_m(sparse: Sparse) -> Reading:
    """The shortest M of which every group has zeros, and the most that any group keeps."""
    for m in range(2, _LARGEST_M + 1):
        n = _most_of(m, sparse)
        misplaced = _size(*sparse) * n // m - _nonzeros(sparse)
        if n < m and misplaced <= _misplaceable(sparse):
            pattern = NM(n=n, m=m)
            return Reading(
                pattern=pattern,
                goals={matrix.name: pattern.sparsity for matrix in sparse},
                reason=f"no {m} consecutive inputs of an output keep more than {n}",
            )
    return Reading(reason=f"no N:M up to M = {_LARGEST_M}")


def _as_unstructured(sparse: Sparse) -> Reading:
    """Zeros at no regular places, which every sparse matrix has at least."""
    goals = {m.name: _goal(int(np.count_nonzero(mask)), mask.size) for m, mask in sparse.items()}
    return Reading(
        pattern=Unstructured(sparsity=_mean(goals, sparse)),
        goals=goals,
        reason="zeros lie at no regular places",
    )


def _fits(sparse: Sparse, rows: int, columns: int) -> bool:
    """Whether zeros fill whole blocks, but for a few inside blocks that are kept."""
    room = _misplaceable(sparse)
    for mask_NK in sparse.values():
        blocks = int(np.count_nonzero(_alive_blocks(mask_NK, rows, columns)))
        room -= blocks * rows * columns - np.count_nonzero(mask_NK)
        if room < 0:
            return False
    return True


def _misplaceable(sparse: Sparse) -> float:
    """How many zeros may lie where a pattern that describes them well keeps weights."""
    nonzeros = _nonzeros(sparse)
    return MISPLACED * min(nonzeros, _size(*sparse) - nonzeros)


def _nonzeros(sparse: Sparse) -> int:
    """How many weights of all matrices are not zero."""
    return sum(int(np.count_nonzero(mask)) for mask in sparse.values())


def _most_of(m: int, sparse: Sparse) -> int:
    """The most non-zeros in any M consecutive inputs; M as soon as that is sure."""
    most = 1
    for mask_NK in sparse.values():
        if mask_NK.shape[1] % m:
            return m
        most = max(most, int(mask_NK.reshape(-1, m).sum(1, dtype=np.uint8).max()))
        if most == m:
            return m
    return most


def _alive_blocks(mask_NK: Mask, rows: int, columns: int) -> Mask:
    """Which blocks ``[G, U]`` hold a non-zero."""
    N, K = mask_NK.shape
    alive_GK = mask_NK.reshape(N // rows, rows, K).any(1)
    return np.asarray(alive_GK.reshape(N // rows, K // columns, columns).any(2))


def _alive_slices(mask_NK: Mask, slices: Structured) -> Mask:
    """Which slices ``[U]`` hold a non-zero."""
    alive_L = mask_NK.any(1 - slices.axis)
    return np.asarray(alive_L.reshape(-1, slices.width).any(1))


def _divisors(sparse: Sparse, axis: int) -> Sequence[int]:
    """Sizes that divide all matrices along an axis, the largest first."""
    common = math.gcd(*(m.shape[axis] for m in sparse))
    return [d for d in range(common, 0, -1) if common % d == 0]


def _goal(kept: int, count: int) -> float:
    """The sparsity at which a pattern keeps ``kept`` of ``count``.

    A pattern cannot drop everything, nor have a sparsity of 0: one that keeps all asks for less
    than half a thing to go, which rounds to none.
    """
    return max(1 - max(1, kept) / count, 0.25 / count)


def _mean(goals: Mapping[str, float], sparse: Sparse) -> float:
    """The goals in one number, each matrix counted by its size, within what a pattern may have."""
    mean = sum(goals[m.name] * _size(m) for m in sparse) / _size(*sparse)
    return min(max(round(mean, 4), 0.0001), 0.9999)


def _size(*matrices: Matrix) -> int:
    """How many weights there are."""
    return sum(m.shape[0] * m.shape[1] for m in matrices)
