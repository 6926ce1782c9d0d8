"""Which weights stay: importance scores to masks, for every pattern, over the whole encoder.

Each matrix has a goal, a pattern at a sparsity of its own; matrices without one stay dense. Under
the structured pattern the matrices that share heads or neurons are ranked together, since their
slices stand or fall together (``domain.encoder``).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern, Structured

Masks = Mapping[str, Tensor]
Goals = Mapping[str, Pattern]


def targets_of(
    encoder: Encoder, pattern: Pattern, exclude: Sequence[str] = ()
) -> dict[str, Pattern]:
    """The pattern on every matrix whose name contains none of ``exclude``.

    Raises:
        BadSetting: an exclusion matches nothing, all are excluded, or one of several coupled
            matrices is excluded without the others.
        BadPattern: the pattern does not fit a matrix.
    """
    matrices = list(encoder.matrices())
    for part in exclude:
        if not any(part in m.name for m in matrices):
            raise BadSetting(
                "no matrix has such a name", got=f"--exclude {part}", fix="see spd inspect"
            )
    kept = [m for m in matrices if not any(part in m.name for part in exclude)]
    if not kept:
        raise BadSetting("all matrices are excluded", got=exclude, fix="exclude fewer")
    if isinstance(pattern, Structured):
        _refuse_torn(encoder, {m.name for m in kept})
    goals = {m.name: encoder.pattern_on(m, pattern) for m in kept}
    for matrix in kept:
        goals[matrix.name].check(matrix.shape)
    return goals


def masks_of(
    encoder: Encoder, goals: Goals, scores: Mapping[str, Tensor], share: float = 1.0
) -> dict[str, Tensor]:
    """A boolean mask ``[N, K]`` by matrix name, each keeping what scores highest.

    Args:
        encoder: says which slices belong together.
        goals: what zeros may be where, and how many at last.
        scores: importance of each weight, ``[N, K]`` by matrix name.
        share: how much of each goal's sparsity is wanted now.
    """
    return dict(_masks(encoder, goals, scores, share))


def apply_masks(weights: Mapping[str, nn.Parameter], masks: Masks) -> None:
    """Set what the masks drop to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)


def densities_of(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of non-zeros by matrix name."""
    return {
        name: float(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()
    }


def sparsity_of(masks: Masks) -> float:
    """Share of zeros over all the masks."""
    if not masks:
        return 0.0
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / sum(mask.numel() for mask in masks.values())


def coupled_goals(encoder: Encoder, goals: Goals) -> Iterator[tuple[Matrix, ...]]:
    """The matrices that have goals, in groups that are ranked together."""
    if any(isinstance(goal, Structured) for goal in goals.values()):
        groups = list(encoder.coupled())
    else:
        groups = [(m,) for m in encoder.matrices()]
    pruned = (tuple(m for m in group if m.name in goals) for group in groups)
    yield from (group for group in pruned if group)


def _masks(
    encoder: Encoder, goals: Goals, scores: Mapping[str, Tensor], share: float
) -> Iterator[tuple[str, Tensor]]:
    """Mask by mask."""
    for group in coupled_goals(encoder, goals):
        patterns = [goals[m.name] for m in group]
        structured = [p for p in patterns if isinstance(p, Structured)]
        if structured:
            shared = list(zip(group, structured, strict=True))
            sums = [p.slice_scores(scores[m.name]) for m, p in shared]
            keep_U = structured[0].keep(torch.stack(sums).sum(0), structured[0].sparsity * share)
            yield from ((m.name, p.spread(keep_U, m.shape)) for m, p in shared)
        else:
            (matrix,), (pattern,) = group, patterns
            yield matrix.name, pattern.mask(scores[matrix.name], pattern.sparsity * share)


def _refuse_torn(encoder: Encoder, kept: set[str]) -> None:
    """Heads and neurons go from all matrices that share them, or from none."""
    for group in encoder.coupled():
        inside = [m.name in kept for m in group]
        if any(inside) and not all(inside):
            raise BadSetting(
                "under the structured pattern these matrices are excluded together or not at all",
                got=", ".join(m.name for m in group),
                fix="exclude the others too",
            )
