"""From importance scores to masks, for every pattern, over the whole encoder.

Each matrix has a target: a pattern at a sparsity of its own. Matrices without a target stay dense.
Under the structured pattern the matrices that share heads or neurons are ranked together, since a
head or neuron is pruned from all of them (``domain.encoder``).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import Pattern, Structured

Masks = Mapping[str, Tensor]
Targets = Mapping[str, Pattern]


def targets_of(
    encoder: Encoder, pattern: Pattern, exclude: Sequence[str] = ()
) -> dict[str, Pattern]:
    """The target of every matrix whose name contains none of ``exclude``, by name.

    Raises:
        BadSetting: an exclusion matches no matrix, all matrices are excluded, or some of several
            coupled matrices are excluded.
        BadPattern: the pattern does not fit the shape of a matrix.
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
    if pattern.structured:
        _refuse_torn(encoder, {m.name for m in kept})
    targets = {m.name: encoder.pattern_on(m, pattern) for m in kept}
    for matrix in kept:
        targets[matrix.name].check(matrix.shape)
    return targets


def masks_of(
    encoder: Encoder, targets: Targets, scores: Mapping[str, Tensor], share: float = 1.0
) -> dict[str, Tensor]:
    """A boolean mask ``[N, K]`` by matrix name; True keeps a weight.

    Args:
        encoder: says which matrices are coupled.
        targets: pattern and final sparsity by matrix name.
        scores: importance ``[N, K]`` by matrix name; the highest are kept.
        share: share of each target's sparsity that is wanted now, in (0, 1].
    """
    return dict(_masks(encoder, targets, scores, share))


def apply_masks(weights: Mapping[str, nn.Parameter], masks: Masks) -> None:
    """Set the weights that the masks prune to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)


def densities_of(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of non-zeros by matrix name, in [0, 1]."""
    return {
        name: float(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()
    }


def sparsity_of(masks: Masks) -> float:
    """Share of zeros over all masks together, in [0, 1]."""
    if not masks:
        return 0.0
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / sum(mask.numel() for mask in masks.values())


def coupled_targets(encoder: Encoder, targets: Targets) -> Iterator[tuple[Matrix, ...]]:
    """The matrices that have targets, in groups that are ranked together."""
    if any(target.structured for target in targets.values()):
        groups = list(encoder.coupled())
    else:
        groups = [(m,) for m in encoder.matrices()]
    pruned = (tuple(m for m in group if m.name in targets) for group in groups)
    yield from (group for group in pruned if group)


def _masks(
    encoder: Encoder, targets: Targets, scores: Mapping[str, Tensor], share: float
) -> Iterator[tuple[str, Tensor]]:
    """The name and the mask ``[N, K]`` of each matrix that has a target."""
    for group in coupled_targets(encoder, targets):
        patterns = [targets[m.name] for m in group]
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
    """Refuse to prune some and exclude others of the matrices that share heads or neurons."""
    for group in encoder.coupled():
        inside = [m.name in kept for m in group]
        if any(inside) and not all(inside):
            raise BadSetting(
                "under the structured pattern these matrices are excluded together or not at all",
                got=", ".join(m.name for m in group),
                fix="exclude the others too",
            )
