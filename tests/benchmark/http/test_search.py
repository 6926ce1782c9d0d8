"""The search for a rate, and the verdict on a load, against brute force."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.benchmark.http.http_records import HttpSettings
from spd_deploy.benchmark.http.judge_http import cost_of
from spd_deploy.benchmark.http.judge_load import tail_s, verdict_of
from spd_deploy.benchmark.http.load_spec import LoadOutcome
from spd_deploy.benchmark.http.search import Found, Trial, found_by, next_rate
from spd_deploy.domain.errors import BadSetting

BOUND = HttpSettings(latency_bound_s=0.1)
FINE = LoadOutcome(
    latency_s=(0.01,) * 100,
    late_s=(0.0,) * 100,
    refused=0,
    failed=0,
    rows=100,
    wrong=0,
    golden=12,
    difference=0.0,
    elapsed_s=1.0,
)


@given(st.floats(0.2, 3.0), st.integers(6, 14))
def test_the_search_closes_in_on_the_limit(limit: float, steps: int) -> None:
    """The limit always lies between what met the bound and what missed it."""
    trials: list[Trial] = []
    for _ in range(steps):
        rate = next_rate(trials, 100.0)
        trials.append(Trial(rate=rate, verdict="met" if rate <= 100 * limit else "missed"))
    found = found_by(trials)

    assert found.met is None or found.met <= 100 * limit
    assert found.missed is None or found.missed > 100 * limit
    if found.met is not None and found.missed is not None and steps >= 12:
        assert found.missed / found.met < 1.15


def test_a_rate_that_was_not_judged_is_tried_again() -> None:
    """It says nothing of the server, so the next step is the same."""
    first = next_rate([], 100.0)

    assert next_rate([Trial(rate=first, verdict="not judged")], 100.0) == first


def test_luck_above_a_miss_does_not_count() -> None:
    """A rate that met the bound above one that missed it is left out."""
    trials = [
        Trial(rate=10.0, verdict="met"),
        Trial(rate=20.0, verdict="missed"),
        Trial(rate=30.0, verdict="met"),
    ]

    assert found_by(trials) == Found(met=10.0, missed=20.0)


@given(
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=300), st.integers(0, 9), st.integers(0, 9)
)
def test_lost_requests_took_forever(seconds: list[float], refused: int, failed: int) -> None:
    """p99 is that of the sorted list in which every request without an answer is infinite."""
    outcome = replace(FINE, latency_s=tuple(seconds), refused=refused, failed=failed)
    every = sorted([*seconds, *[math.inf] * (refused + failed)])

    assert tail_s([outcome]) == every[math.ceil(0.99 * len(every)) - 1]


@given(st.lists(st.tuples(st.floats(0.001, 1.0), st.booleans()), min_size=1, max_size=300))
def test_wrong_answers_do_not_make_the_tail_shorter(answers: list[tuple[float, bool]]) -> None:
    """p99 is no less than that of the list in which every wrong answer is infinite."""
    seconds = tuple(s for s, _ in answers)
    outcome = replace(FINE, latency_s=seconds, wrong=sum(wrong for _, wrong in answers))
    every = sorted(math.inf if wrong else s for s, wrong in answers)

    assert tail_s([outcome]) >= every[math.ceil(0.99 * len(every)) - 1]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (FINE, "met"),
        (replace(FINE, latency_s=(0.2,) * 100), "missed"),
        (replace(FINE, refused=5), "missed"),
        (replace(FINE, wrong=5), "missed"),
        (replace(FINE, late_s=(0.05,) * 100), "not judged"),
        (replace(FINE, late_s=(0.05,) * 100, latency_s=(0.2,) * 100), "not judged"),
    ],
    ids=["fast", "slow", "refused", "wrong", "late", "late and slow"],
)
def test_a_load_is_judged_by_its_tail(outcome: LoadOutcome, verdict: str) -> None:
    """Slow, refused and wrong answers miss the bound; a late generator judges nothing."""
    assert verdict_of([outcome], BOUND) == verdict


def test_a_million_requests_have_a_price() -> None:
    """At 100 a second a million take 10,000 s, which at 3.60 an hour is 10."""
    assert cost_of(3.60, 100.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "wrong", [{"rates": (0.0,)}, {"latency_bound_s": -1.0}, {"price_per_hour": math.inf}]
)
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, object]) -> None:
    """RateList, bound and price are above zero and finite."""
    with pytest.raises(BadSetting, match="must be above zero"):
        replace(BOUND, **wrong)  # type: ignore[arg-type]
