"""Percentiles and ratios against NumPy and SciPy, and the laws of their intervals."""

import numpy as np
import pytest
from scipy import stats

from spd_deploy.benchmark.stats import (
    Rounds,
    SpeedUp,
    estimates,
    samples_for,
    speed_up_of,
)
from tests.benchmark.made import drawn


def flat(rounds: Rounds) -> np.ndarray:
    """All samples."""
    return np.concatenate([np.asarray(r) for r in rounds])


def test_percentiles_are_those_of_numpy() -> None:
    """p50, p90 and p99 are NumPy's quantiles of all samples."""
    rounds = drawn(0.01, spread=0.3)
    found = estimates(rounds, (0.5, 0.9, 0.99), seed=0)

    values = [estimate.value for estimate in found if estimate]
    assert values == pytest.approx(np.quantile(flat(rounds), (0.5, 0.9, 0.99)).tolist(), rel=1e-12)


def test_the_bootstrap_of_single_runs_is_that_of_scipy() -> None:
    """With one run a round, drawing rounds is the plain bootstrap, and SciPy finds its interval."""
    rounds = drawn(0.01, rounds=200, runs=1, spread=0.3)
    (found,) = estimates(rounds, (0.5,), seed=0)
    oracle = stats.bootstrap(
        (flat(rounds),), np.median, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval

    assert found is not None
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=0.01)


def test_an_interval_holds_its_value() -> None:
    """Low, value and high come in this order."""
    for estimate in estimates(drawn(0.01, spread=0.5), (0.5, 0.9, 0.99), seed=3):
        assert estimate is not None
        assert estimate.low <= estimate.value <= estimate.high


def test_rounds_that_disagree_widen_the_interval() -> None:
    """The same samples give a wider interval where rounds hold them together."""
    values = np.sort(flat(drawn(0.01, spread=0.3)))
    apart = values.reshape(6, 40)
    mixed = np.random.default_rng(0).permutation(values).reshape(6, 40)
    (wide,), (narrow,) = (estimates(r.tolist(), (0.5,), seed=0) for r in (apart, mixed))

    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("quantile", "fewest"), [(0.5, 2), (0.9, 10), (0.99, 100)])
def test_a_percentile_needs_a_sample_beyond_it(quantile: float, fewest: int) -> None:
    """One sample fewer than needed gives none, and as many give one."""
    enough, short = [[0.1] * fewest, []], [[0.1] * (fewest - 1), []]

    assert samples_for(quantile) == fewest
    assert estimates([enough[0][:1], enough[0][1:]], (quantile,), seed=0) != [None]
    if fewest > 2:
        assert estimates([short[0][:1], short[0][1:]], (quantile,), seed=0) == [None]


def test_a_speed_up_has_the_interval_that_scipy_finds() -> None:
    """Ratio and ends are SciPy's for the mean of the logarithms of the rounds' ratios."""
    base, other = drawn(0.02, spread=0.2, seed=1), drawn(0.01, spread=0.2, seed=2)
    logs = np.log([np.median(b) / np.median(o) for b, o in zip(base, other, strict=True)])
    oracle = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    found = speed_up_of(base, other)

    assert found.ratio == pytest.approx(stats.gmean(np.exp(logs)), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(
        (np.exp(oracle.low), np.exp(oracle.high)), rel=1e-9
    )


def test_an_arm_has_the_speed_of_itself() -> None:
    """Against itself, the ratio and both ends are 1, and no difference is shown."""
    found = speed_up_of(drawn(0.01), drawn(0.01))

    assert (found.ratio, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.verdict == "no difference shown"


def test_arms_alike_are_rarely_told_apart() -> None:
    """Of 300 pairs drawn alike, about 95 in 100 have 1 in their interval."""
    found = [
        speed_up_of(drawn(0.01, spread=0.2, seed=2 * i), drawn(0.01, spread=0.2, seed=2 * i + 1))
        for i in range(300)
    ]
    held = np.mean([s.low <= 1 <= s.high for s in found])

    assert 0.91 <= held <= 0.99


def test_half_the_time_is_twice_the_speed() -> None:
    """Scaling every sample scales ratio and interval by as much."""
    base = drawn(0.02, seed=1)
    half = [[s / 2 for s in r] for r in base]

    assert speed_up_of(base, half).ratio == pytest.approx(2.0, rel=1e-12)
    assert speed_up_of(base, half).verdict == "faster"


def test_swapping_the_arms_inverts_the_ratio() -> None:
    """Base over other is one over other over base, ends included."""
    base, other = drawn(0.02, seed=1), drawn(0.01, seed=2)
    there, back = speed_up_of(base, other), speed_up_of(other, base)

    assert (back.ratio, back.low, back.high) == pytest.approx(
        (1 / there.ratio, 1 / there.high, 1 / there.low), rel=1e-12
    )


def test_a_slow_round_of_both_arms_changes_nothing() -> None:
    """Whatever slows a whole round leaves the ratio and its interval alone."""
    base, other = drawn(0.02, seed=1), drawn(0.01, seed=2)
    slow = [[[s * (3 if i == 2 else 1) for s in r] for i, r in enumerate(a)] for a in (base, other)]
    plain, slowed = speed_up_of(base, other), speed_up_of(*slow)

    assert (slowed.ratio, slowed.low, slowed.high) == pytest.approx(
        (plain.ratio, plain.low, plain.high), rel=1e-12
    )


def test_a_slow_part_of_a_round_widens_the_interval() -> None:
    """What slows one arm alone, for one turn, moves that round's ratio, and no verdict is left."""
    base, other = drawn(0.02, seed=1), drawn(0.018, seed=2)
    slow = [[s * (3 if i == 2 else 1) for s in r] for i, r in enumerate(other)]
    plain, slowed = speed_up_of(base, other), speed_up_of(base, slow)

    assert plain.verdict == "faster"
    assert slowed.high / slowed.low > 2 * plain.high / plain.low
    assert slowed.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.05, 1.2, "faster"),
        (1.005, 1.2, "no difference shown"),
        (0.9, 1.1, "no difference shown"),
        (0.8, 0.95, "slower"),
        (0.8, 0.995, "no difference shown"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    """Faster and slower are said only where both ends lie beyond one per cent."""
    assert SpeedUp(ratio=(low * high) ** 0.5, low=low, high=high).verdict == verdict


def test_numbers_keep_the_digits_that_tell_the_ends_apart() -> None:
    """A wide interval has one decimal above 2, a narrow one two."""
    assert str(SpeedUp(ratio=2.31, low=2.2, high=2.4)) == "faster 2.3x [2.2, 2.4]"
    assert SpeedUp(ratio=2.31, low=2.30, high=2.32).numbers == "2.31x [2.30, 2.32]"
    assert SpeedUp(ratio=1.0, low=0.98, high=1.02).numbers == "1.00x [0.98, 1.02]"
