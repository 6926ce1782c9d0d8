"""The sparsity of each matrix, such that all matrices together have the wanted one.

    uniform       each matrix has the pattern's own sparsity
    global        units (weights, blocks, slices) of all matrices are ranked in one list
    sensitivity   more where a trial showed that it costs less (``pruning.sensitivity``)

Every matrix keeps a smallest share of its weights. Coupled matrices have one sparsity.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import (
    NM,
    Block,
    Pattern,
    Structured,
    Unstructured,
    at_sparsity,
)
from spd_train.pruning.masks import Targets, coupled_targets

# A sparsity must be above 0; this one prunes no weight.
_NOTHING = 1e-6
_BISECTIONS = 60


def global_targets(
    encoder: Encoder,
    targets: Targets,
    scores: Mapping[str, Tensor],
    *,
    share: float,
    least_density: float,
) -> dict[str, Pattern]:
    """The targets at the sparsities that one ranking of the units of all matrices gives.

    A unit's score is the mean over its weights. The total sparsity comes as close to the wanted one
    as whole units allow.

    Args:
        encoder: says which matrices are coupled.
        targets: the pattern of each matrix by name; their sparsities give the total.
        scores: importance ``[N, K]`` by matrix name.
        share: share of the total sparsity that is wanted now, in (0, 1].
        least_density: share of its weights that every matrix keeps.
    """
    groups = list(coupled_targets(encoder, targets))
    sorted_U = [unit_scores(group, targets, scores).sort().values for group in groups]
    weights = [sum(m.shape[0] * m.shape[1] for m in group) for group in groups]
    total = sum(
        w * targets[group[0].name].sparsity for w, group in zip(weights, groups, strict=True)
    )
    to_keep = sum(weights) - share * total

    def densities(threshold: float) -> list[float]:
        return [
            max(least_density, 1 - float(torch.searchsorted(u, threshold, right=True)) / len(u))
            for u in sorted_U
        ]

    low = min(float(u[0]) for u in sorted_U) - 1.0
    high = max(float(u[-1]) for u in sorted_U)
    for _ in range(_BISECTIONS):
        middle = _middle(low, high)
        kept = sum(w * d for w, d in zip(weights, densities(middle), strict=True))
        low, high = (middle, high) if kept > to_keep else (low, middle)
    return with_densities(groups, targets, densities(high))


def with_densities(
    groups: Sequence[tuple[Matrix, ...]], targets: Targets, densities: Sequence[float]
) -> dict[str, Pattern]:
    """The targets of all matrices in ``groups``, at one density a group.

    Args:
        groups: coupled matrices, which share a sparsity.
        targets: the pattern of each matrix by name.
        densities: share of weights to keep, for each group.
    """
    return {
        m.name: at_sparsity(targets[m.name], min(1 - _NOTHING, max(_NOTHING, 1 - density)))
        for group, density in zip(groups, densities, strict=True)
        for m in group
    }


def unit_scores(group: Sequence[Matrix], targets: Targets, scores: Mapping[str, Tensor]) -> Tensor:
    """Mean score ``[U]`` of each unit of a group of coupled matrices.

    A unit is kept or pruned as a whole: a weight, a block, or a slice under the structured pattern.
    """
    pattern, score_NK = targets[group[0].name], scores[group[0].name]
    match pattern:
        case Structured():
            return _slice_means(group, targets, scores)
        case Block():
            return pattern.block_scores(score_NK).flatten() / (pattern.rows * pattern.columns)
        case Unstructured():
            return score_NK.flatten()
        case NM():
            raise AssertionError(f"{pattern} fixes the sparsity of every matrix")
        case never:
            assert_never(never)


def _slice_means(group: Sequence[Matrix], targets: Targets, scores: Mapping[str, Tensor]) -> Tensor:
    """Mean score ``[U]`` of each slice over all the matrices that share it."""
    sums, weights = [], 0
    for matrix in group:
        pattern = targets[matrix.name]
        assert isinstance(pattern, Structured)  # noqa: S101 - coupled matrices share a pattern
        sums.append(pattern.slice_scores(scores[matrix.name]))
        weights += matrix.shape[0] * matrix.shape[1] // len(sums[-1])
    return torch.stack(sums).sum(0) / weights


def _middle(low: float, high: float) -> float:
    """The geometric mean of positive bounds, since scores span many powers; otherwise the mean."""
    return (low * high) ** 0.5 if low > 0 else (low + high) / 2
