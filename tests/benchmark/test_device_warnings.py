"""What a card's state and clocks give reason to caveat."""

from dataclasses import replace

import pytest

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.machine_warnings import card_caveats
from spd_deploy.benchmark.warnings import comparison_caveats, device_caveats
from spd_deploy.domain.nvidia import GpuState
from spd_deploy.domain.roofline import Work
from tests.benchmark.made import SHAPE, three_arms
from tests.benchmark.made_device import device_report, looked, two_dense_and_a_block


def run() -> DevicePart:
    found = two_dense_and_a_block().device
    assert found is not None
    return found


def said(*looks: GpuState, **changes: object) -> list[str]:
    return list(card_caveats(replace(run(), during=looks or run().during, **changes)))  # type: ignore[arg-type]


def test_a_steady_card_with_locked_clocks_raises_no_caveat() -> None:
    """Nothing is said where there is nothing to say."""
    assert judge(two_dense_and_a_block()).caveats == ()
    assert said() == []


@pytest.mark.parametrize(
    ("looks", "caveat"),
    [
        (
            [looked(reasons=("power cap", "clocks set by the user")), looked()],
            "it was throttled under load (power cap) in 50 % of the readings",
        ),
        (
            [looked(reasons=("heat, by hardware", "clocks set by the user"))],
            "it was throttled under load (heat, by hardware) in 100 % of the readings",
        ),
        (
            [looked(sm_mhz=1980.0), looked(sm_mhz=1485.0)],
            "its clock moved by 25 % under load, between 1485 and 1980 MHz",
        ),
        ([looked(reasons=())], "its clocks were not locked"),
        (
            [looked(reasons=None)],
            "it is not known whether it was throttled: the card does not tell",
        ),
    ],
)
def test_one_fault_raises_one_caveat(looks: list[GpuState], caveat: str) -> None:
    """Throttling, moving and unlocked clocks, and a card that does not tell, are each named."""
    assert said(*looks) == [caveat]


def test_small_and_idle_movements_are_none() -> None:
    """A clock that moves a little, or while the card idles, is steady."""
    idle = looked(sm_mhz=345.0, busy_percent=0.0, reasons=("idle", "power brake"))

    assert said(looked(sm_mhz=1980.0), looked(sm_mhz=1950.0), idle) == []


def test_a_card_that_does_not_tell_its_load_is_taken_at_work() -> None:
    """As a slice of a card is, so that its throttling is not lost."""
    slow = looked(busy_percent=None, reasons=("power cap",))

    assert any("power cap" in line for line in said(slow))


def test_other_work_before_the_run_is_doubted() -> None:
    """Processes that were there before, and a card that was busy."""
    busy = looked(at_s=0.0, busy_percent=40.0)

    assert said(processes_before=1) == ["1 other process computed on it before the run"]
    assert said(processes_before=2) == ["2 other processes computed on it before the run"]
    assert said(before=busy) == ["it was not idle before the run: 40 % busy"]
    assert said(before=None, processes_before=None) == []


def test_a_card_that_was_not_seen_is_doubted() -> None:
    """Without a look during the run its clocks are unknown."""
    (found,) = card_caveats(replace(run(), during=()))
    assert "the driver did not tell; see" in found


@pytest.mark.parametrize(("share", "doubted"), [(0.79, False), (0.9, True)])
def test_launch_bound_runs_are_doubted(share: float, doubted: bool) -> None:
    """From four fifths of the GPU's time on, the host is what is measured."""
    report = device_report({"eager": (0.02, 0.03)}, dense=("eager",), enqueue_share=share)

    found = device_caveats(report, judge(report).device)
    assert [d.shape for d in found if "launch-bound" in d.what] == [str(SHAPE)] * doubted


def test_a_limit_that_was_passed_is_doubted() -> None:
    """Nothing runs below its least time: then a count or a rate is wrong."""
    work = Work(flops=1e13, moved_bytes=1e9)
    report = device_report({"eager": (0.02, 0.03)}, dense=("eager",), work=work)

    (found,) = device_caveats(report, judge(report).device)
    assert "below its least time" in found.what
    assert found.amount == "500 %"


def test_an_arm_that_the_gpu_never_timed_is_named() -> None:
    """A session without device runs is known by the host's clock alone, which is said."""
    report = two_dense_and_a_block()
    series = tuple(s for s in run().series if s.arm != "block")
    report = replace(report, device=replace(run(), series=series))

    (found,) = device_caveats(report, judge(report).device)
    assert found.about == "block"
    assert "its session keeps no batch on the GPU" in found.what


def test_a_cpu_has_no_such_caveats() -> None:
    """A report without a GPU raises none of them."""
    assert list(device_caveats(three_arms(), ())) == []


def test_dense_forms_that_cover_a_precision_leave_nothing_to_caveat() -> None:
    """Among several the fastest counts, in whatever runtime; a precision that none has is named."""
    report = two_dense_and_a_block()
    eager, compiled, block = report.arms
    elsewhere = replace(block, runtime=replace(block.runtime, runtime="onnxruntime"))
    small = replace(block, precision="int8")

    assert (
        list(comparison_caveats(replace(report, arms=(eager, compiled, elsewhere)), elsewhere))
        == []
    )
    (said,) = comparison_caveats(replace(report, arms=(eager, compiled, small)), small)
    assert said.startswith("it runs in int8 and eager in fp16")
