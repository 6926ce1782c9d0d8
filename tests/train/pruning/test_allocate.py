"""Heads and neurons of each layer: against all choices by brute force, and laws of the search."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_train.pruning.structured.allocate import SublayerLevels, allocate
from spd_train.pruning.structured.search import (
    SearchSettings,
    measured_costs,
    search,
    trials_at_most,
)


def sublayers_of(seed: int, count: int, levels: int) -> list[SublayerLevels]:
    """Units with rising whole costs and falling errors."""
    draw = np.random.default_rng(seed)
    return [
        SublayerLevels(
            kept_L=np.arange(levels),
            costs_L=np.concatenate([[0], np.cumsum(draw.integers(1, 9, levels - 1))]).astype(float),
            errors_L=np.concatenate([np.sort(draw.random(levels - 1))[::-1], [0]]),
        )
        for _ in range(count)
    ]


def cost(units: Sequence[SublayerLevels], levels: Sequence[int]) -> float:
    """What the units cost together."""
    return sum(float(u.costs_L[i]) for u, i in zip(units, levels, strict=True))


def error(
    units: Sequence[SublayerLevels], weights: Sequence[float], levels: Sequence[int]
) -> float:
    """The weighted sum of the errors."""
    return sum(w * float(u.errors_L[i]) for u, w, i in zip(units, weights, levels, strict=True))


@given(seed=st.integers(0, 1000), budget=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_no_choice_within_the_budget_has_less_error(seed: int, budget: int) -> None:
    """Of all choices that fit, dynamic programming finds one with the least error."""
    units = sublayers_of(seed, 3, 5)
    weights = np.random.default_rng(seed).random(3).tolist()
    chosen = allocate(units, weights, budget, bins=budget)

    choices = [c for c in product(range(5), repeat=3) if cost(units, c) <= budget]
    best = min(error(units, weights, c) for c in choices)
    assert chosen is not None
    assert cost(units, chosen) <= budget
    assert error(units, weights, chosen) == pytest.approx(best)


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_no_budget_has_no_choice(budget: float) -> None:
    """Where nothing may be spent, there is no allocation."""
    assert allocate(sublayers_of(0, 2, 3), [1, 1], budget) is None


def test_costs_above_the_budget_have_no_choice() -> None:
    """Where the cheapest levels are too dear together, there is no allocation."""
    dear = [
        SublayerLevels(
            kept_L=np.array([1, 2]), costs_L=np.array([2.0, 3.0]), errors_L=np.array([0.1, 0.0])
        )
        for _ in range(2)
    ]
    assert allocate(dear, [1, 1], 3.9) is None
    assert allocate(dear, [1, 1], 4.0) == [0, 0]


class Network:
    """A network whose output moves by its units' errors, some of which count more than others."""

    def __init__(self, units: Sequence[SublayerLevels], weights: Sequence[float]) -> None:
        self.units, self.weights = units, weights
        self.trials = 0

    def distance(self, kept: Sequence[int]) -> float:
        """The weighted errors, and what two errors make together."""
        self.trials += 1
        errors = [
            w * float(u.errors_L[k]) for u, w, k in zip(self.units, self.weights, kept, strict=True)
        ]
        return sum(errors) + 0.3 * sum(a * b for a, b in pairwise(errors))


@given(seed=st.integers(0, 300))
@settings(max_examples=25, deadline=None)
def test_the_search_keeps_the_budget_and_beats_the_units_own_errors(seed: int) -> None:
    """Its result fits, and moves the output no more than the allocation by the units' errors."""
    units = sublayers_of(seed, 4, 6)
    network = Network(units, np.exp(np.random.default_rng(seed).normal(0, 2, 4)).tolist())
    budget = 0.4 * sum(float(u.costs_L[-1]) for u in units)
    settings = SearchSettings(corrections=2, mutations=10)
    trials = 0

    def advance() -> None:
        nonlocal trials
        trials += 1

    found = search(units, budget, network.distance, settings, advance=advance)

    assert found is not None
    assert cost(units, found.kept) <= budget
    assert found.distance == network.distance(found.kept)
    costs = measured_costs(units, network.distance, lambda: None)
    plain = allocate(costs, [1.0] * 4, budget)
    assert plain is not None
    assert found.distance <= network.distance(plain)
    assert trials <= trials_at_most(4, settings)
    assert found == search(units, budget, network.distance, settings)


@given(seed=st.integers(0, 300), noise=st.sampled_from([0.0, 0.05, 0.5]))
@settings(max_examples=25, deadline=None)
def test_rough_distances_decide_what_is_tried_not_what_is_best(seed: int, noise: float) -> None:
    """On part of the texts a candidate may look better or worse; the result counts on all."""
    units = sublayers_of(seed, 4, 6)
    network = Network(units, np.exp(np.random.default_rng(seed).normal(0, 2, 4)).tolist())
    budget = 0.4 * sum(float(u.costs_L[-1]) for u in units)
    settings = SearchSettings(corrections=2, mutations=10)

    def rough(kept: Sequence[int]) -> float:
        """The distance, wrong by up to the noise, the same for the same numbers."""
        wrong = np.random.default_rng([seed, *kept]).uniform(-noise, noise)
        return network.distance(kept) * (1 + float(wrong))

    exact = search(units, budget, network.distance, settings)
    found = search(units, budget, network.distance, settings, rough=rough)

    assert found is not None and exact is not None
    assert cost(units, found.kept) <= budget
    assert found.distance == network.distance(found.kept)
    if not noise:
        assert found == exact


def test_costs_are_what_the_output_moves() -> None:
    """At the levels that are measured, a unit's cost is the distance with all others whole."""
    units = sublayers_of(3, 3, 41)
    network = Network(units, [1.0, 5.0, 0.1])
    for i, found in enumerate(measured_costs(units, network.distance, lambda: None)):
        for level in (0, 2, 5, 10, 20, 40):
            kept = [40, 40, 40]
            kept[i] = level
            assert found.errors_L[level] == pytest.approx(network.distance(kept))
