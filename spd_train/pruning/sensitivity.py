"""An allocation of the sparsity by trial: the cost of pruning one matrix alone.

Each group of coupled matrices is pruned alone to several levels, and the change of the last hidden
state is measured on calibration texts. The lower convex hull of these costs is a curve for each
group. Weights are then removed where the next one costs least, until the total is reached. This is
optimal as far as the costs of the groups add up.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Pattern
from spd_train.grafting import GraftedNetwork
from spd_train.pruning.allocation import with_densities
from spd_train.pruning.calibration import Calibration, evaluation_mode, forward_hook
from spd_train.pruning.masks import Targets, coupled_targets, masks_of

_LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
# A trial needs fewer texts than a reconstruction: only the order of the costs matters.
_TRIAL_BATCHES = 2

Point = tuple[float, float]


def sensitivity_targets(
    network: GraftedNetwork,
    targets: Targets,
    scores: Mapping[str, Tensor],
    calibration: Calibration,
    *,
    least_density: float,
) -> dict[str, Pattern]:
    """The targets at the sparsities that cost least, with the same total sparsity.

    Args:
        network: its students are tried.
        targets: the pattern of each matrix by name; their sparsities give the total.
        scores: importance ``[N, K]`` by matrix name.
        calibration: texts to measure the costs on.
        least_density: share of its weights that every matrix keeps.
    """
    groups = list(coupled_targets(network.encoder, targets))
    levels = [*(s for s in _LEVELS if s < 1 - least_density), 1 - least_density]
    sizes = [sum(m.shape[0] * m.shape[1] for m in group) for group in groups]
    to_remove = sum(
        n * targets[group[0].name].sparsity for n, group in zip(sizes, groups, strict=True)
    )
    with evaluation_mode(network):
        network.graft_all(True)
        before = _last_hidden(network, calibration)
        curves = [
            [(0.0, 0.0)]
            + [(s, _cost(network, group, targets, scores, s, calibration, before)) for s in levels]
            for group in groups
        ]
    sparsities = cheapest(curves, sizes, to_remove)
    return with_densities(groups, targets, [1 - s for s in sparsities])


def cheapest(
    curves: Sequence[Sequence[Point]], sizes: Sequence[int], to_remove: float
) -> list[float]:
    """The sparsity of each group that removes ``to_remove`` weights in all at the least total cost.

    Args:
        curves: of each group, points of sparsity and cost in rising order from (0, 0).
        sizes: number of weights of each group.
        to_remove: number of weights to remove, at most what the last points allow.
    """
    steps = sorted(
        ((cost_b - cost_a) / ((at_b - at_a) * size), g, at_a, at_b)
        for g, (curve, size) in enumerate(zip(curves, sizes, strict=True))
        for (at_a, cost_a), (at_b, cost_b) in pairwise(lower_hull(curve))
    )
    sparsities = [0.0] * len(curves)
    left = to_remove
    for _, g, at_a, at_b in steps:
        taken = min(left, (at_b - at_a) * sizes[g])
        sparsities[g] = at_a + taken / sizes[g]
        left -= taken
        if left <= 0:
            break
    return sparsities


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The points on the lower convex hull, from left to right (Andrew's monotone chain)."""
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and not _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _turns_up(a: Point, b: Point, c: Point) -> bool:
    """Whether the slope from b to c is steeper than that from a to b."""
    return (b[1] - a[1]) * (c[0] - b[0]) < (c[1] - b[1]) * (b[0] - a[0])


def _cost(
    network: GraftedNetwork,
    group: Sequence[Matrix],
    targets: Targets,
    scores: Mapping[str, Tensor],
    sparsity: float,
    calibration: Calibration,
    before: Sequence[Tensor],
) -> float:
    """The cost of pruning ``group`` alone: change of the last hidden state, over its variance."""
    mine = with_densities([tuple(group)], {m.name: targets[m.name] for m in group}, [1 - sparsity])
    masks = masks_of(network.encoder, mine, scores)
    kept = {name: network.linear(name).weight.clone() for name in masks}
    for name, mask in masks.items():
        network.linear(name).weight.mul_(mask)
    after = _last_hidden(network, calibration)
    for name, weight in kept.items():
        network.linear(name).weight.copy_(weight)
    errors = [(a - b).square().mean() / b.var() for a, b in zip(after, before, strict=True)]
    return float(torch.stack(errors).mean())


def _last_hidden(network: GraftedNetwork, calibration: Calibration) -> list[Tensor]:
    """The last hidden state ``[T, H]`` at the real tokens of each trial batch."""
    outputs: list[Tensor] = []

    def keep(_: Tensor, output_BSH: Tensor) -> None:
        outputs.append(output_BSH.float())

    batches = calibration.batches[:_TRIAL_BATCHES]
    with forward_hook(network.layers[-1], keep):
        for batch in batches:
            with calibration.autocast():
                network(batch)
    return [h[b.mask_BS.bool()] for h, b in zip(outputs, batches, strict=True)]
