"""Each caveat is raised by the data that deserve it, and by no other."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.steadiness import drift_of, sample_caveats
from spd_deploy.benchmark.warnings import Caveat, caveats_of, grouped
from spd_deploy.timing.machine_load import Conditions
from spd_deploy.timing.speed_up import Rounds
from tests.benchmark.made import ARM, MACHINE, drawn, made_report, three_arms


def steady() -> Report:
    """Two arms with nothing to caveat."""
    return made_report({"dense": drawn(0.01, seed=1), "sparse": drawn(0.005, seed=2)})


def with_arm(report: Report, **changes: object) -> Report:
    """The report with its second arm changed."""
    return replace(report, arms=(report.arms[0], replace(report.arms[1], **changes)))  # type: ignore[arg-type]


def test_steady_samples_of_an_idle_machine_raise_no_caveat() -> None:
    """Nothing is said where there is nothing to say."""
    assert caveats_of(steady()) == ()


CHANGES: dict[str, Callable[[Report], Report]] = {
    "other processes kept 1.5 of 4 cores busy": lambda r: replace(
        r, conditions=Conditions(load_before=0.0, others_cores=1.5)
    ),
    "the machine was not idle before the run: load 2.00": lambda r: replace(
        r, conditions=Conditions(load_before=2.0, others_cores=0.0)
    ),
    "the number of threads was left to the runtime": lambda r: replace(
        r, settings=replace(r.settings, threads=None)
    ),
    "8 threads share 4 usable cores": lambda r: replace(r, settings=replace(r.settings, threads=8)),
    "its governor is 'powersave'": lambda r: replace(
        r, machine=replace(MACHINE, governor="powersave")
    ),
    "it is another model than dense": lambda r: with_arm(r, sizes={"layers": 12, "hidden": 64}),
    "it answers task mrpc, and dense task sst2": lambda r: with_arm(r, task="mrpc"),
    "the baseline is sparse itself": lambda r: replace(
        r, arms=(replace(r.arms[0], pattern="2:4", sparsity=0.5), r.arms[1])
    ),
    "it runs in int8 and dense in fp32": lambda r: with_arm(r, precision="int8"),
    "it runs in torch and onnxruntime": lambda r: with_arm(
        r, runtime=replace(ARM.runtime, runtime="torch")
    ),
}


@pytest.mark.parametrize("said", [said for said in CHANGES if "torch" not in said])
def test_one_fault_raises_one_caveat(said: str) -> None:
    """A fault of the machine or the comparison is named, and nothing else is."""
    (found,) = caveats_of(CHANGES[said](steady()))

    assert said in found.what


def test_an_interval_of_two_ratios_is_doubted() -> None:
    """Two rounds make an interval of two ratios, which is said of each arm compared, once."""
    samples = {"dense": drawn(0.01, rounds=2, runs=120), "sparse": drawn(0.005, rounds=2, runs=120)}

    (found,) = caveats_of(made_report(samples))

    assert (found.about, found.what) == (
        "sparse",
        "only 2 rounds: the interval rests on 2 ratios",
    )


def test_unlike_runtimes_are_doubted() -> None:
    """An arm in another runtime than the baseline is named."""
    changed = with_arm(steady(), runtime=replace(ARM.runtime, runtime="torch"))

    assert [caveat.what for caveat in caveats_of(changed)] == [
        "it runs in torch and dense in onnxruntime"
    ]


@pytest.mark.parametrize(
    "conditions", [Conditions(load_before=None, others_cores=0.0)], ids=["load not counted"]
)
def test_what_the_system_does_not_count_is_no_caveat(conditions: Conditions) -> None:
    """A missing load or governor is not held against the machine."""
    report = replace(steady(), conditions=conditions, machine=replace(MACHINE, governor=None))

    assert caveats_of(report) == ()


SERIES: dict[str, tuple[Rounds, str]] = {
    "fewer than 10 runs, so no p90": (drawn(0.01, rounds=3, runs=2), "6 runs"),
    "fewer than 100 runs, so no p99": (drawn(0.01, rounds=6, runs=10), "60 runs"),
    "runs scatter": ([[0.01, 0.02] * 20] * 6, "33 %"),
    "rounds disagree": ([[s] * 40 for s in (0.010, 0.012, 0.010, 0.012, 0.010, 0.010)], "20 %"),
    "it drifts: nearly every round was slower": (
        [[0.01 * (1 + 0.012 * i)] * 40 for i in range(6)],
        "6 %",
    ),
    "it drifts: nearly every round was faster": (
        [[0.01 * (1 - 0.012 * i)] * 40 for i in range(6)],
        "6 %",
    ),
}


@pytest.mark.parametrize("said", SERIES)
def test_unsteady_samples_are_doubted_with_their_amount(said: str) -> None:
    """Samples that scatter, disagree, drift or are few are named, with how much."""
    rounds, amount = SERIES[said]

    assert amount in [how for what, how in sample_caveats(rounds) if what.startswith(said)]


def test_few_rounds_in_a_row_are_no_drift() -> None:
    """Four rounds line up by chance too often to say."""
    assert drift_of([1.0, 1.1, 1.2, 1.3]) == 0.0
    assert drift_of([1.0, 1.1, 1.2, 1.3, 1.4]) == pytest.approx(0.4)


def test_rounds_up_and_down_are_no_drift() -> None:
    """A drift goes one way."""
    assert drift_of([1.0, 1.3, 0.9, 1.2, 1.0, 1.1]) == 0.0


def test_a_reason_is_printed_once() -> None:
    """Arms and shapes with the same caveat share its line, each with its amount."""
    caveats = [
        Caveat(about="a", what="runs scatter", shape="1x16", amount="12 %"),
        Caveat(about="a", what="runs scatter", shape="8x16", amount="20 %"),
        Caveat(about="b", what="runs scatter", shape="1x16", amount="30 %"),
        Caveat(about="machine", what="it is busy"),
    ]

    assert grouped(caveats) == {
        "runs scatter": ["a at 1x16 (12 %), 8x16 (20 %)", "b at 1x16 (30 %)"],
        "it is busy": ["machine"],
    }


def test_a_baseline_is_not_compared_with_itself() -> None:
    """Without a baseline no comparison is doubted."""
    report = replace(with_arm(steady(), precision="int8"), baselines=())

    assert caveats_of(report) == ()


def test_caveats_name_arm_and_shape() -> None:
    """A series' caveat says where it holds."""
    report = three_arms()
    noisy = tuple(
        replace(s, seconds=s.seconds[:2]) if s.arm == "nm" and s.shape.batch == 1 else s
        for s in report.series
    )

    found = {(d.about, d.shape) for d in caveats_of(replace(report, series=noisy))}
    assert found == {("nm", "1x16")}
