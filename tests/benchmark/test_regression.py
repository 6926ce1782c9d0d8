"""Two reports row by row: the same one, a worse one, and those that are not compared."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from spd_deploy.benchmark.http.http_records import HttpLoad, HttpPart, HttpSettings
from spd_deploy.benchmark.http.load_spec import LoadOutcome
from spd_deploy.benchmark.records import Shape
from spd_deploy.benchmark.regression import compare_reports, comparison_table
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.errors import BadReport
from tests.benchmark.made import ARM, drawn, gathered, made_report, three_arms

SHAPE = Shape(batch=1, seq=16)


def report_of(dense_s: float, block_s: float, seed: int = 0) -> Report:
    """A dense and a block arm with these medians."""
    samples = {"dense": drawn(dense_s, seed=seed), "block": drawn(block_s, seed=seed + 1)}
    return made_report(samples, arms=(ARM, gathered()))


def compared(old: Report, new: Report, *, times: bool = False) -> list[tuple[str, bool]]:
    """Each row, and whether it failed."""
    found = compare_reports(old, new, fail_below=0.95, times=times)
    return [(one.what, one in found.failed) for one in found.changes]


def test_a_report_equals_itself() -> None:
    """Every ratio is 1 and no row fails, at each shape of each arm but the dense one."""
    found = compare_reports(three_arms(), three_arms(), fail_below=0.95, times=False)

    assert {one.ratio for one in found.changes} == {1.0}
    assert len(found.changes) == 2 * 2
    assert not found.failed


def test_a_machine_that_is_slower_as_a_whole_is_no_loss() -> None:
    """Twice the time in both arms leaves their ratio alone; absolute times are asked for apart."""
    old, new = report_of(0.010, 0.005), report_of(0.020, 0.010, seed=5)

    assert [failed for _, failed in compared(old, new)] == [False]
    assert [failed for _, failed in compared(old, new, times=True)] == [True, False, True]


def test_a_lost_speed_up_fails_its_row() -> None:
    """From twice as fast to one and a half times is a ratio of 0.75, and the verdict names it."""
    found = compare_reports(
        report_of(0.010, 0.005), report_of(0.010, 0.00667, seed=5), fail_below=0.95, times=False
    )

    (row,) = found.failed
    assert row.what == "block at 8x32: times dense"
    assert row.ratio == pytest.approx(0.75, abs=0.02)
    assert row.low is not None and row.high is not None and row.low < row.ratio < row.high
    assert comparison_table(found).rows[0][-1] == "failed"


def test_a_failure_within_the_noise_says_so() -> None:
    """A row below the limit whose interval reaches 1 fails, and tells that it may be chance."""
    loose = {"dense": drawn(0.010, rounds=2, spread=0.9), "block": drawn(0.0052, rounds=2)}
    found = compare_reports(
        made_report(loose, arms=(ARM, gathered())),
        made_report({**loose, "block": drawn(0.006, rounds=2)}, arms=(ARM, gathered())),
        fail_below=0.95,
        times=False,
    )

    assert comparison_table(found).rows[0][-1] == "failed, within the noise"


def other_arm(report: Report, **changes: object) -> Report:
    """The report with another block arm."""
    arms = tuple(
        replace(arm, **changes) if arm.name == "block" else arm  # type: ignore[arg-type]
        for arm in report.arms
    )
    return replace(report, arms=arms)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (lambda r: replace(r, machine=replace(r.machine, cpu="Other CPU")), "the machine .cpu."),
        (lambda r: replace(r, settings=replace(r.settings, threads=4)), "the number of threads"),
        (lambda r: made_report({"dense": drawn(0.01)}), "the arms: block"),
        (lambda r: other_arm(r, precision="int8"), "the precision of block"),
        (lambda r: other_arm(r, sparsity=0.9), "the sparsity of block"),
        (lambda r: replace(r, baselines=()), "the baseline"),
    ],
    ids=["machine", "threads", "arms", "precision", "sparsity", "baseline"],
)
def test_unlike_reports_are_refused(new: Callable[[Report], Report], said: str) -> None:
    """What differs is named, with both values."""
    old = report_of(0.010, 0.005)

    with pytest.raises(BadReport, match=f"differ in {said}.* before, .* now"):
        compare_reports(old, new(old), fail_below=0.95, times=False)


def test_other_shapes_are_refused() -> None:
    """A ratio at one shape says nothing of another."""
    samples = {"dense": drawn(0.010), "block": drawn(0.005)}
    new = made_report(samples, arms=(ARM, gathered()), shapes=(SHAPE,))

    with pytest.raises(BadReport, match="differ in the shapes; got 8x32 before, 1x16 now"):
        compare_reports(report_of(0.010, 0.005), new, fail_below=0.95, times=False)


def test_reports_without_a_dense_arm_have_no_ratios() -> None:
    """They are refused, unless times are asked for."""
    alone = made_report({"dense": drawn(0.010)}, baseline=None)

    with pytest.raises(BadReport, match="no ratio against a dense arm"):
        compare_reports(alone, alone, fail_below=0.95, times=False)
    assert len(compared(alone, alone, times=True)) == 1


def over_http(report: Report, **rates: tuple[tuple[float, float], ...]) -> Report:
    """The report with loads through HTTP: of each arm, rates with the latency at each."""

    def outcome(seconds: float) -> LoadOutcome:
        counts = {"refused": 0, "failed": 0, "wrong": 0, "golden": 0}
        times = {"latency_s": (seconds,) * 100, "late_s": (0.0,) * 100, "elapsed_s": 1.0}
        return LoadOutcome(**times, **counts, rows=100, difference=0.0)  # type: ignore[arg-type]

    bare = {"bare_s": (0.001,) * 100, "bare_rows": 100}
    loads = [
        HttpLoad(arm=arm, scenario=scenario, round=i, outcome=outcome(0.01), shape=shape, **bare)  # type: ignore[arg-type]
        for arm in rates
        for i in range(2)
        for scenario, shape in (("single stream", SHAPE), ("offline", None))
    ]
    loads += [
        HttpLoad(arm=arm, scenario="server", round=0, outcome=outcome(s), rate=rate, searched=True)
        for arm, tried in rates.items()
        for rate, s in tried
    ]
    part = HttpPart(settings=HttpSettings(), texts_per_request=32, in_flight=8, loads=tuple(loads))
    return replace(report, http=part)


FAST, SLOW = 0.01, 0.2
DENSE = ((100.0, FAST), (150.0, SLOW))


def test_a_rate_whose_end_was_not_found_is_a_note() -> None:
    """How far the search gets depends on the hour: an open end is no loss, and is told."""
    plain = report_of(0.010, 0.005)
    old = over_http(plain, dense=DENSE, block=((200.0, FAST), (300.0, SLOW)))
    new = over_http(plain, dense=DENSE, block=((200.0, FAST),))

    found = compare_reports(old, new, fail_below=0.95, times=False)

    assert not found.failed
    assert "block, rate at the bound: times dense: not known in the new report" in found.notes


def test_an_arm_that_misses_the_bound_at_every_rate_has_lost() -> None:
    """Its rate is 0 times the dense one."""
    plain = report_of(0.010, 0.005)
    old = over_http(plain, dense=DENSE, block=((200.0, FAST), (300.0, SLOW)))
    new = over_http(plain, dense=DENSE, block=((200.0, SLOW),))

    found = compare_reports(old, new, fail_below=0.95, times=False)

    assert [one.what for one in found.failed] == ["block, rate at the bound: times dense"]
