"""Speed-ups and their intervals against SciPy, and the laws of them."""

import numpy as np
import pytest
from scipy import stats

from spd_deploy.timing.speed_up import SpeedUp, speed_up_of
from tests.benchmark.made import drawn


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
