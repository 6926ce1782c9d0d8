"""Looking at a card while something runs."""

import threading

import pytest

from spd_deploy.benchmark.device.watch_gpu import watching
from spd_deploy.domain.nvidia import GpuReading
from tests.nvml import h100_reading


def test_a_card_is_seen_before_during_and_after() -> None:
    """There is a look before, some during, and one after the context."""
    looked = threading.Event()
    times: list[float] = []

    def read(at_s: float) -> GpuReading:
        times.append(at_s)
        if len(times) > 3:
            looked.set()
        return h100_reading(at_s)

    with watching(read, every_s=0.0) as watch:
        assert looked.wait(30)

    assert watch.properties is not None and watch.properties.name == "NVIDIA H100 80GB HBM3"
    assert times[0] == 0.0
    assert len(watch.during) >= 2
    assert watch.after is not None
    assert watch.after.at_s >= watch.during[-1].at_s >= 0


def test_a_card_that_is_not_told_of_stops_nothing() -> None:
    """Where the driver tells nothing there is nothing to see, and the work is done."""
    with watching(lambda at_s: None, every_s=0.001) as watch:
        pass

    assert (watch.properties, watch.during, watch.after) == (None, [], None)


def test_an_error_of_the_work_is_its_own() -> None:
    """What goes wrong meanwhile comes out, and the looking has ended."""
    with (
        pytest.raises(ValueError, match="work"),
        watching(h100_reading),
    ):
        raise ValueError("work")

    assert "spd-gpu-watch" not in {thread.name for thread in threading.enumerate()}
