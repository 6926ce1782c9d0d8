"""The loops around the GPU's clock, on a simulated GPU whose times are known."""

from dataclasses import dataclass

import numpy as np
import pytest

from spd_deploy.benchmark.device.device_records import DeviceSeries
from spd_deploy.benchmark.device.time_device import DeviceSamples, DeviceTimer, time_arms
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device_runs import DeviceRuns
from tests.timing.simulated_gpu import SimulatedGpu, SimulatedRun, SimulatedRuns, Times

SHAPES = (Shape(batch=1, seq=8), Shape(batch=4, seq=8))
BATCHES = {shape: random_batch(shape, 100, np.random.default_rng(0)) for shape in SHAPES}
SETTINGS = BenchmarkSettings(
    shapes=SHAPES, device="cuda", rounds=2, seconds=1e-6, min_runs=3, max_runs=5
)  # no time at all, so the least number of runs


def timed(**sessions: SimulatedRuns) -> DeviceSamples:
    (gpu,) = {id(s.gpu): s.gpu for s in sessions.values()}.values()
    timer = DeviceTimer(gpu=gpu, clock=gpu.clock, settings=SETTINGS)
    return time_arms(sessions, BATCHES, timer, progress=Silent())


def series_of(found: DeviceSamples, mode: str, cache: str) -> list[DeviceSeries]:
    return [s for s in found.series if (s.mode, s.cache) == (mode, cache)]


def test_each_clock_measures_its_own() -> None:
    """A graph's time by the GPU is its kernels' alone; the host's holds the launch too."""
    found = timed(a=SimulatedRuns(SimulatedGpu()))

    for one in series_of(found, "graph", "hot"):
        assert one.gpu_s == pytest.approx([100e-6] * 3)  # no launch in it
        assert one.enqueue_s == pytest.approx([5e-6] * 3)
        assert one.host_s == pytest.approx([105e-6] * 3)


def test_cold_runs_take_what_the_cache_saved() -> None:
    """The flush itself is in no sample, what it costs the run is."""
    found = timed(a=SimulatedRuns(SimulatedGpu()))

    hot, cold = (series_of(found, "launched", cache)[0] for cache in ("hot", "cold"))
    assert np.subtract(cold.gpu_s, hot.gpu_s) == pytest.approx([30e-6] * 3)


def test_a_launch_bound_run_shows_in_the_enqueueing() -> None:
    """Where the host takes longer than the device, the GPU's time has the waiting in it."""
    slow = Times(host_ns=400_000, device_ns=10_000)
    found = timed(a=SimulatedRuns(SimulatedGpu(), slow))

    (one, *_) = series_of(found, "launched", "hot")
    assert one.enqueue_s[0] / one.gpu_s[0] > 0.95
    (one, *_) = series_of(found, "graph", "hot")
    assert one.enqueue_s[0] / one.gpu_s[0] < 0.6


def test_copies_stand_apart() -> None:
    """Ids in and logits out have times of their own, by the size of the batch."""
    found = timed(a=SimulatedRuns(SimulatedGpu()))

    for one in found.copies:
        assert one.to_device_s == pytest.approx([8e-9 * one.shape.tokens] * 3)
        assert one.to_host_s == pytest.approx([2e-6] * 3)
    assert len(found.copies) == len(SHAPES) * SETTINGS.rounds


def test_arms_take_turns_in_every_way() -> None:
    """Each arm, shape, way and round has a series, and the second round goes backwards."""
    gpu = SimulatedGpu()
    found = timed(a=SimulatedRuns(gpu), b=SimulatedRuns(gpu))

    keys = [(s.arm, s.shape, s.round, s.mode, s.cache) for s in found.series]
    assert len(keys) == len(set(keys)) == 2 * len(SHAPES) * 2 * 2 * 2
    assert list(dict.fromkeys((s.round, s.arm) for s in found.series)) == [
        (0, "a"), (0, "b"), (1, "b"), (1, "a"),
    ]  # fmt: skip


def test_a_way_that_is_refused_is_told_once_and_not_tried_again() -> None:
    """An arm without graphs is measured launched, with the reason for the rest."""
    session = SimulatedRuns(SimulatedGpu(), graphs=False)
    found = timed(a=session)

    assert {s.mode for s in found.series} == {"launched"}
    told = found.untimed_of("a")
    assert [(one.mode, str(one.shape)) for one in told] == [("graph", "1x8"), ("graph", "4x8")]
    assert "no graph can be captured" in told[0].reason
    assert session.prepared == len(SHAPES) * SETTINGS.rounds
    assert found.copies


def test_the_time_is_kept_to() -> None:
    """Runs go on until the series' share of the time is spent, and no longer."""
    gpu = SimulatedGpu()
    # Of two rounds and five parts, ten samples by graph: a run by each clock, and a pause.
    seconds = 2 * 5 * 10 * (105e-6 + 301e-6)
    settings = BenchmarkSettings(
        shapes=SHAPES[:1], device="cuda", rounds=2, seconds=seconds, min_runs=2, max_runs=500
    )
    timer = DeviceTimer(gpu=gpu, clock=gpu.clock, settings=settings)
    batches = {shape: BATCHES[shape] for shape in settings.shapes}
    found = time_arms({"a": SimulatedRuns(gpu)}, batches, timer, progress=Silent())

    (one, *_) = series_of(found, "graph", "hot")
    assert 9 <= len(one.gpu_s) <= 11


def test_the_simulated_session_offers_device_runs() -> None:
    """What offers ``prepare`` is told from what does not."""
    assert isinstance(SimulatedRuns(SimulatedGpu()), DeviceRuns)
    assert not isinstance(SimulatedGpu(), DeviceRuns)


@dataclass
class Breaking(SimulatedRuns):
    """A session whose library fails, in words of its own, where it is launched."""

    def prepare(self, batch: Batch, *, graph: bool) -> SimulatedRun:
        if not graph:
            raise RuntimeError("an illegal memory access")
        return super().prepare(batch, graph=graph)


def test_a_librarys_failure_leaves_the_other_ways() -> None:
    """The way that failed has its reason, once; by graph the arm is measured, and so are others."""
    gpu = SimulatedGpu()
    found = timed(a=Breaking(gpu), b=SimulatedRuns(gpu))

    assert {one.reason for one in found.untimed_of("a")} == {
        "RuntimeError: an illegal memory access"
    }
    assert {s.mode for s in found.series if s.arm == "a"} == {"graph"}
    assert {s.mode for s in found.series if s.arm == "b"} == {"graph", "launched"}
