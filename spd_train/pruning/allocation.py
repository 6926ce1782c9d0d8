"""How sparse each matrix is to be, so that all together reach the goal.

    uniform       each matrix at the pattern's own sparsity
    global        units (weights, blocks, slices) of all matrices are ranked in one list
    sensitivity   more where a trial showed that it costs less (``pruning.sensitivity``)

Every matrix keeps a floor, so that none dies. Matrices whose slices are coupled count as one.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import Block, Pattern, Structured, at_sparsity
from spd_train.pruning.masks import Goals, coupled_goals

# A sparsity is above 0 by definition; this one drops nothing.
_NOTHING = 1e-6
_BISECTIONS = 60


def global_goals(
    encoder: Encoder,
    goals: Goals,
    scores: Mapping[str, Tensor],
    *,
    share: float,
    least_density: float,
) -> dict[str, Pattern]:
    """Goals whose sparsities are those of one ranking over all matrices.

    A unit's score is its mean over the weights in it. ``share`` of the goals' own total sparsity is
    met as nearly as whole units allow.
    """
    groups = list(coupled_goals(encoder, goals))
    sorted_U = [unit_scores(group, goals, scores).sort().values for group in groups]
    weights = [sum(m.shape[0] * m.shape[1] for m in group) for group in groups]
    total = sum(w * goals[group[0].name].sparsity for w, group in zip(weights, groups, strict=True))
    wanted = sum(weights) - share * total

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
        low, high = (middle, high) if kept > wanted else (low, middle)
    return with_densities(groups, goals, densities(high))


def with_densities(
    groups: Sequence[tuple[Matrix, ...]], goals: Goals, densities: Sequence[float]
) -> dict[str, Pattern]:
    """The goals at other densities, one for each group."""
    return {
        m.name: at_sparsity(goals[m.name], min(1 - _NOTHING, max(_NOTHING, 1 - density)))
        for group, density in zip(groups, densities, strict=True)
        for m in group
    }


def unit_scores(group: Sequence[Matrix], goals: Goals, scores: Mapping[str, Tensor]) -> Tensor:
    """Mean score of each unit ``[U]`` that a group of coupled matrices keeps or drops whole."""
    pattern = goals[group[0].name]
    if isinstance(pattern, Structured):
        sums, weights = [], 0
        for matrix in group:
            placed = goals[matrix.name]
            assert isinstance(placed, Structured)  # noqa: S101 - coupled matrices share a pattern
            sums.append(placed.slice_scores(scores[matrix.name]))
            weights += matrix.shape[0] * matrix.shape[1] // len(sums[-1])
        return torch.stack(sums).sum(0) / weights
    score_NK = scores[group[0].name]
    if isinstance(pattern, Block):
        return pattern.block_scores(score_NK).flatten() / (pattern.rows * pattern.columns)
    return score_NK.flatten()


def _middle(low: float, high: float) -> float:
    """Halfway, on a scale of powers where both ends are positive: scores span many of them."""
    return (low * high) ** 0.5 if low > 0 else (low + high) / 2
