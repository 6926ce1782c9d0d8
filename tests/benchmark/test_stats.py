"""Percentiles against NumPy and SciPy, and the laws of their intervals."""

import numpy as np
import pytest
from scipy import stats

from spd_deploy.benchmark.stats import estimates, samples_for
from spd_deploy.timing.speed_up import Rounds
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
