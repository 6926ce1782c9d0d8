"""The sentences: what a run shows, and why an arm is not faster."""

from dataclasses import replace

import pytest

from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.summary import headlines, kind_of, leading
from tests.benchmark.made import (
    ARM,
    DENSE,
    NO_KERNEL,
    SHAPE,
    drawn,
    gathered,
    made_report,
    three_arms,
    without_kernel,
)


def said(report: Report) -> list[str]:
    """All headlines."""
    return [str(line) for line in headlines(report, judge(report))]


def against_dense(arm: ArmFacts, median_s: float, *, spread: float = 0.005) -> str:
    """The headline of one arm beside a baseline of 10 ms."""
    (line,) = said(
        made_report(
            {
                "dense": drawn(0.010, spread=spread, seed=1),
                arm.name: drawn(median_s, spread=spread, seed=2),
            },
            arms=(ARM, arm),
        )
    )
    return line


def test_a_faster_arm_is_called_faster() -> None:
    """The ratio and the baseline are named, and no excuse is made."""
    line = against_dense(gathered(), 0.004)

    assert line == (
        "block (block:16x1 at 75 %): 2.5x faster than dense (95 % interval 2.50 to 2.50) "
        "on this CPU."
    )


def test_an_arm_that_runs_dense_says_why() -> None:
    """A 2:4 arm of the same speed gives its manifest's reason."""
    line = against_dense(without_kernel(), 0.010)

    assert line == (
        "nm (2:4 at 50 %): no speed-up over dense shown on this CPU. "
        f"Why: all 12 matrices run dense: {NO_KERNEL}."
    )


def test_unsteady_runs_are_the_reason_where_they_hide_it() -> None:
    """A sparse arm whose interval reaches far is not said to be as slow as dense."""
    line = against_dense(gathered(), 0.010, spread=1.5)

    assert "no speed-up over dense shown" in line
    assert "too unsteady to tell" in line
    assert "measure longer" in line


def test_a_sparse_arm_of_the_same_speed_says_what_is_left() -> None:
    """Steady runs without a gain point to the work that sparsity leaves."""
    assert "its matrices do 25 % of the dense multiplications" in against_dense(gathered(), 0.010)


def test_a_slower_arm_is_called_slower() -> None:
    """A loss is told with its ratio and its reason."""
    line = against_dense(gathered(), 0.020)

    assert "0.50x the speed of dense" in line
    assert "Why:" in line


def test_the_share_left_counts_weights_not_matrices() -> None:
    """One large dense matrix outweighs many small sparse ones."""
    arm = gathered()
    large = replace(DENSE, matrices=1, weights=84_000, reason="it is too small to gain")
    mixed = replace(arm, lowered=(arm.lowered[0], large))
    line = against_dense(mixed, 0.010)

    assert mixed.flops_share == pytest.approx((0.25 * 12_000 + 84_000) / 96_000)
    assert "its matrices do 91 % of the dense multiplications" in line
    assert "1 of 13 matrices run dense: it is too small to gain" in line


def test_an_arm_without_matrices_says_so() -> None:
    """A manifest that tells nothing is said to tell nothing."""
    line = against_dense(replace(gathered(), lowered=()), 0.010)

    assert "its manifest does not say how its matrices are run" in line


def test_shapes_are_told_apart() -> None:
    """Where only some shapes got faster, each verdict names its shapes."""
    report = three_arms()
    slow = tuple(
        replace(s, seconds=tuple(2 * t for t in s.seconds))
        if s.arm == "block" and s.shape == SHAPE
        else s
        for s in report.series
    )

    assert said(replace(report, series=slow))[0] == (
        "block (block:16x1 at 75 %): 2.0x faster than dense at 1x16 "
        "(95 % interval 1.99 to 2.00); no difference shown at 8x32 on this CPU."
    )


def int8(arm: ArmFacts, name: str) -> ArmFacts:
    """The arm in int8, under another name."""
    runtime = replace(arm.runtime, precision="int8")
    return replace(arm, name=name, precision="int8", runtime=runtime)


def test_a_ratio_over_two_precisions_is_said_to_hold_both() -> None:
    """Without a dense int8 arm nothing tells what sparsity alone gains, and that is said."""
    line = against_dense(int8(gathered(), "block-int8"), 0.002)

    assert "5.0x faster than dense" in line
    assert "includes the step from fp32 to int8" in line
    assert "no dense arm like it was measured" in line


def test_a_dense_arm_of_the_same_precision_tells_what_sparsity_gains() -> None:
    """Beside 5x over dense fp32 stands the 2x over dense int8."""
    steady = {"dense": 0.010, "dense-int8": 0.004, "block-int8": 0.002}
    report = made_report(
        {name: drawn(s, spread=0.005, seed=i) for i, (name, s) in enumerate(steady.items())},
        arms=(ARM, int8(ARM, "dense-int8"), int8(gathered(), "block-int8")),
    )

    (line,) = [line for line in said(report) if line.startswith("block-int8")]

    assert "5.0x faster than dense " in line
    assert "sparsity alone, over dense-int8: 2.0x (95 % interval 2.00 to 2.00)" in line


def test_steady_runs_of_one_precision_need_no_more_words() -> None:
    """Nothing is said of steps or steadiness where there is nothing to say."""
    line = against_dense(gathered(), 0.004)

    assert "includes" not in line
    assert "Not steady" not in line


def test_a_claim_says_that_its_runs_scatter() -> None:
    """The largest scatter of the arm and what it is compared with stands in the headline."""
    line = against_dense(gathered(), 0.004, spread=0.8)

    assert "Not steady: runs scatter by up to" in line


def test_the_claim_is_that_of_the_surest_gain() -> None:
    """An arm that surely gains 2x leads before one that may gain 4x or nothing."""
    report = made_report(
        {
            "dense": drawn(0.010, seed=1),
            "wild": drawn(0.0025, spread=2.5, runs=3, seed=2),
            "sure": drawn(0.005, seed=3),
        },
        arms=(ARM, gathered("wild"), gathered("sure")),
    )

    assert leading(report, judge(report)) == 1


def test_without_a_baseline_nothing_is_claimed() -> None:
    """Every arm has its medians, and a word on why no ratio."""
    lines = said(replace(three_arms(), baselines=()))

    assert len(lines) == 3
    assert all("Without a baseline no speed-up is claimed." in line for line in lines)


def test_a_kind_names_pattern_and_precision() -> None:
    """Dense fp32 needs one word, the rest is added."""
    assert kind_of(ARM) == "dense"
    assert kind_of(replace(gathered(), precision="int8")) == "block:16x1 at 75 %, int8"
