"""Sparsity spread over matrices: the total is met, none dies, and brute force does no better."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spd_deploy.domain.patterns import Block, Pattern, Structured, Unstructured
from spd_train.model import encoder_from_config
from spd_train.pruning.allocation import global_targets, unit_scores, with_densities
from spd_train.pruning.masks import coupled_targets, masks_of, sparsity_of, targets_of
from spd_train.pruning.sensitivity import Point, cheapest, lower_hull
from tests.tiny import tiny_config

ENCODER = encoder_from_config(tiny_config(hidden=16, heads=4, intermediate=32))


def scores(seed: int) -> dict[str, Tensor]:
    """Scores that differ much in size from matrix to matrix."""
    draw = torch.Generator().manual_seed(seed)
    return {
        m.name: torch.rand(m.shape, generator=draw)
        * 10 ** float(4 * torch.rand(1, generator=draw) - 2)
        for m in ENCODER.matrices()
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_global_goals_are_one_ranking_of_all_weights(seed: int, share: float) -> None:
    """Where the floor binds nowhere, the masks are those of the highest scores of the encoder."""
    targets = targets_of(ENCODER, Unstructured(sparsity=0.5))
    score = scores(seed)

    found = global_targets(ENCODER, targets, score, share=share, least_density=1e-6)
    masks = masks_of(ENCODER, found, score)

    every = torch.cat([s.flatten() for s in score.values()])
    kept = round(len(every) * (1 - 0.5 * share))
    threshold = every.sort(descending=True).values[kept - 1]
    wrong = sum(int((masks[n] != (s >= threshold)).sum()) for n, s in score.items())
    # A matrix keeps a whole number and at least one weight: off by one in each at most.
    assert wrong <= len(score)
    assert sparsity_of(masks) == pytest.approx(0.5 * share, abs=len(score) / len(every))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.05, 0.95),
    share=st.floats(0.05, 1.0),
    least=st.sampled_from([0.01, 0.02, 0.05]),
    kind=st.sampled_from(["unstructured", "block", "structured"]),
)
def test_global_goals_meet_the_total_and_the_floor(
    seed: int, sparsity: float, share: float, least: float, kind: str
) -> None:
    """No matrix keeps less than the floor, and the whole is as sparse as wanted, to a unit."""
    pattern: Pattern = {
        "unstructured": Unstructured(sparsity=sparsity),
        "block": Block(rows=4, columns=1, sparsity=sparsity),
        "structured": Structured(sparsity=sparsity),
    }[kind]  # type: ignore[assignment]
    targets = targets_of(ENCODER, pattern)
    score = scores(seed)

    found = global_targets(ENCODER, targets, score, share=share, least_density=least)

    assert found.keys() == targets.keys()
    assert min(1 - g.sparsity for g in found.values()) >= least - 1e-9
    sizes = {m.name: m.shape[0] * m.shape[1] for m in ENCODER.matrices()}
    total = sum(sizes[n] * g.sparsity for n, g in found.items()) / sum(sizes.values())
    largest_unit = {"unstructured": 1, "block": 4, "structured": 4 * 16 * 4}[kind]
    assert total == pytest.approx(
        min(sparsity * share, 1 - least), abs=(largest_unit + 1) / sum(sizes.values())
    )


def test_global_goals_take_what_scores_least() -> None:
    """A matrix whose every score is below all others' is pruned to the floor before they are."""
    targets = targets_of(ENCODER, Block(rows=4, columns=1, sparsity=0.1))
    score = {m.name: torch.rand(m.shape) + 1 for m in ENCODER.matrices()}
    worst = next(iter(score))
    score[worst] = score[worst] * 1e-6

    found = global_targets(ENCODER, targets, score, share=1.0, least_density=0.02)

    assert 1 - found[worst].sparsity == pytest.approx(0.02)
    sparse = [g.sparsity for n, g in found.items() if n != worst]
    assert max(sparse) < 0.2


def test_the_score_of_a_unit_is_its_mean_over_all_its_weights() -> None:
    """A block's over its weights; a head's and a neuron's over all matrices it reaches into."""
    score = scores(0)
    blocks = targets_of(ENCODER, Block(rows=4, columns=2, sparsity=0.5))
    first = next(iter(ENCODER.matrices()))
    means = unit_scores((first,), blocks, score)
    assert float(means[1]) == pytest.approx(float(score[first.name][:4, 2:4].mean()), rel=1e-5)

    slices = targets_of(ENCODER, Structured(sparsity=0.5))
    heads, neurons, *_ = coupled_targets(ENCODER, slices)
    query, key, value, output = (score[m.name] for m in heads)
    size = ENCODER.head_size
    of_head = [x[size : 2 * size].flatten() for x in (query, key, value)]
    whole = torch.cat([*of_head, output[:, size : 2 * size].flatten()])
    assert float(unit_scores(heads, slices, score)[1]) == pytest.approx(
        float(whole.mean()), rel=1e-5
    )
    up, down = (score[m.name] for m in neurons)
    neuron = torch.cat([up[3], down[:, 3]])
    assert float(unit_scores(neurons, slices, score)[3]) == pytest.approx(
        float(neuron.mean()), rel=1e-5
    )


def test_goals_at_other_densities_are_still_patterns() -> None:
    """Neither everything nor nothing is a sparsity; the ends become the nearest that are."""
    targets = targets_of(ENCODER, Unstructured(sparsity=0.5))
    groups = list(coupled_targets(ENCODER, targets))

    found = with_densities(groups, targets, [1.0, 0.0] + [0.25] * (len(groups) - 2))

    first, second, third, *_ = (g.sparsity for g in found.values())
    assert 0 < first < 1e-5 and 1 - 1e-5 < second < 1 and third == 0.75


def convex(costs: list[float]) -> list[Point]:
    """A curve from (0, 0) whose slope rises, at levels of a quarter."""
    found, cost = [(0.0, 0.0)], 0.0
    for i, slope in enumerate(sorted(costs)):
        cost += slope
        found.append(((i + 1) / 4, cost))
    return found


slopes = st.lists(st.floats(0.1, 10), min_size=3, max_size=3)


@settings(max_examples=50, deadline=None)
@given(curves=st.lists(slopes, min_size=2, max_size=3), quarters=st.integers(1, 5))
def test_no_other_spread_is_cheaper(curves: list[list[float]], quarters: int) -> None:
    """On convex curves the spread costs no more than any other with as many weights removed."""
    points = [convex(costs) for costs in curves]
    sizes = [4] * len(points)

    found = cheapest(points, sizes, float(quarters))

    def cost(spread: tuple[float, ...]) -> float:
        return sum(dict(p)[s] for p, s in zip(points, spread, strict=True))

    assert sum(s * n for s, n in zip(found, sizes, strict=True)) == pytest.approx(quarters)
    levels = [[p[0] for p in curve] for curve in points]
    options = [o for o in itertools.product(*levels) if sum(o) * 4 == quarters]
    assert cost(tuple(found)) == pytest.approx(min(cost(o) for o in options))


def test_large_and_small_matrices_are_weighed_by_what_is_removed() -> None:
    """A cost is per weight removed: the larger matrix goes first at the same cost."""
    curve = [(0.0, 0.0), (0.5, 1.0)]

    assert cheapest([curve, curve], [10, 100], 50.0) == [0.0, 0.5]


def test_more_than_there_is_removes_what_there_is() -> None:
    """Beyond the last points nothing is removed."""
    assert cheapest([[(0.0, 0.0), (0.9, 1.0)]] * 2, [10, 10], 100.0) == [0.9, 0.9]


@given(costs=st.lists(st.floats(0, 10), min_size=1, max_size=7))
def test_the_hull_lies_below_every_point_and_is_convex(costs: list[float]) -> None:
    """It starts and ends with the curve, its slopes rise, and no point is under it."""
    points = [(0.0, 0.0), *(((i + 1) / 10, c) for i, c in enumerate(costs))]

    hull = lower_hull(points)

    assert hull[0] == points[0] and hull[-1] == points[-1]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(hull)]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(slopes))
    for x, y in points:
        a, b = next((a, b) for a, b in itertools.pairwise(hull) if a[0] <= x <= b[0])
        assert y >= a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]) - 1e-9
