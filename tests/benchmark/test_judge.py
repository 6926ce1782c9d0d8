"""From a report to its rows, verdicts and refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spd_deploy.benchmark.judge import RoundSamples, compare, judge, round_samples_of
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.nvidia import Gpu
from tests.benchmark.made import MACHINE, SHAPE, drawn, made_report, three_arms, three_judged

GPU = Gpu(name="GPU", driver="1", compute_capability="9.0", memory_bytes=1)


def test_rows_hold_the_numbers_of_numpy() -> None:
    """Every arm and shape has a row with the medians, tokens a second and the count of runs."""
    report = three_arms()
    judgement = three_judged()

    assert len(judgement.rows) == 6
    for row in judgement.rows:
        seconds = np.concatenate(report.rounds(row.arm, row.shape))
        assert row.samples == len(seconds) == 240
        assert row.p50.value == pytest.approx(float(np.median(seconds)), rel=1e-12)
        assert row.tokens_per_s == pytest.approx(row.shape.tokens / np.median(seconds), rel=1e-12)


def test_verdicts_are_those_the_samples_were_made_for() -> None:
    """An arm of half the time is faster, one of the same time is not, the baseline has none."""
    judgement = three_judged()
    verdicts = {
        arm: [row.speed_up.verdict if row.speed_up else None for row in judgement.of(arm)]
        for arm in ("dense", "block", "nm")
    }

    assert verdicts == {
        "dense": [None, None],
        "block": ["faster", "faster"],
        "nm": ["no difference shown"] * 2,
    }


def test_the_same_report_gets_the_same_judgement() -> None:
    """Nothing in a judgement is left to chance."""
    assert judge(three_arms()) == three_judged()


def test_without_a_baseline_there_is_no_speed_up() -> None:
    """No arm is compared where none was named to compare with."""
    report = replace(three_arms(), baselines=())

    assert {row.speed_up for row in judge(report).rows} == {None}


def test_few_samples_have_no_tail() -> None:
    """Sixty runs have a p90 and no p99."""
    (row,) = judge(made_report({"dense": drawn(0.01, runs=10)})).rows

    assert row.p90 is not None
    assert row.p99 is None


def test_a_judgement_is_json() -> None:
    """It comes back from its text, verdicts and shapes spelled."""
    value = three_judged().to_json()

    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["rows"][1]["shape"] == "1x16"
    assert value["rows"][1]["speed_up"]["verdict"] == "faster"


def sides() -> tuple[RoundSamples, RoundSamples]:
    """Two sides that may be compared."""
    report = three_arms()
    return round_samples_of(report, "dense", report.rounds("dense", SHAPE)), round_samples_of(
        report, "block", report.rounds("block", SHAPE)
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cpu": "Other CPU"}, "machine (cpu)"),
        ({"cores": 8}, "machine (cores)"),
        ({"usable_cores": 2.0}, "machine (usable_cores)"),
        ({"system": "Linux 5.4 x86_64"}, "machine (system)"),
        ({"gpus": (GPU,)}, "machine (gpus)"),
    ],
)
def test_unlike_machines_are_not_compared(change: dict[str, object], named: str) -> None:
    """A ratio between two machines is refused, naming what differs."""
    base, other = sides()
    elsewhere = replace(other, machine=replace(MACHINE, **change))  # type: ignore[arg-type]

    with pytest.raises(BadReport, match=r"unlike measurements.*spd bench --baseline") as caught:
        compare(base, elsewhere)
    assert named in str(caught.value)


def test_unlike_runs_are_not_compared() -> None:
    """So is one between devices, numbers of threads, or of rounds."""
    base, other = sides()
    on_cuda = replace(other, runtime=replace(other.runtime, device="cuda", threads=None))

    with pytest.raises(BadReport, match="device, number of threads"):
        compare(base, on_cuda)
    with pytest.raises(BadReport, match="number of rounds"):
        compare(base, replace(other, rounds=other.rounds[1:]))


def test_like_measurements_are_compared() -> None:
    """Two arms of one run have a ratio."""
    assert compare(*sides()).ratio == pytest.approx(2.0, rel=0.02)
