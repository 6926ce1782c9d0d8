"""Times runs by the GPU's clock: launched and by graph, with the L2 cache hot and cold; copies.

The host's clock times runs that start on an idle stream, so that its time is of this run alone. A
launched run is timed by the GPU's clock meanwhile: where the host is slower than the GPU, the GPU's
time contains waits for the host, as it does in use, and the time for enqueueing shows why. A graph
is one launch of 10 to 20 us, 4 % of a small batch, which is no time of the GPU's. So a graph runs a
second time for the GPU's clock, behind a pause in which it is enqueued.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

from spd_deploy.benchmark.device.device_records import (
    CACHES,
    MODES,
    Cache,
    CopySeries,
    DeviceSeries,
    Mode,
    UntimedMode,
)
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.errors import reason_of
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device_runs import DeviceRun, DeviceRuns
from spd_deploy.timing.cuda_clock import DeviceClock, stream_seconds
from spd_deploy.timing.host_clock import Clock, TimeBudget, collect
from spd_deploy.timing.rounds import interleave

WARMUPS = 3
Sample = TypeVar("Sample")
Sample3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTimer:
    """The GPU's clock and the host's, and how long to measure."""

    gpu: DeviceClock
    clock: Clock
    settings: BenchmarkSettings

    @property
    def budget(self) -> TimeBudget:
        """One mode and cache of a series: modes, caches and copies share its time evenly."""
        series = self.settings.series
        return replace(series, seconds=series.seconds / (len(MODES) * len(CACHES) + 1))

    def collect(self, sample: Callable[[], Sample]) -> tuple[Sample, ...]:
        """Samples until the budget is spent."""
        return collect(sample, self.budget, clock=self.clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSamples:
    """The samples of all rounds; ``untimed`` holds the reasons by arm, mode and shape."""

    series: list[DeviceSeries] = field(default_factory=list)
    copies: list[CopySeries] = field(default_factory=list)
    untimed: dict[tuple[str, Mode, Shape], str] = field(default_factory=dict)

    def untimed_of(self, arm: str) -> tuple[UntimedMode, ...]:
        """The modes that an arm could not be run in."""
        return tuple(
            UntimedMode(mode=mode, shape=shape, reason=reason)
            for (name, mode, shape), reason in self.untimed.items()
            if name == arm
        )


def time_arms(
    sessions: Mapping[str, DeviceRuns],
    batches: Mapping[Shape, Batch],
    timer: DeviceTimer,
    *,
    progress: Progress,
) -> DeviceSamples:
    """Time every arm at every shape, in every mode and state of the cache, in every round."""
    found, rounds = DeviceSamples(), timer.settings.rounds
    with progress.stage("measure on the GPU", rounds * len(sessions)) as advance:
        for number, arm in interleave(tuple(sessions), rounds):
            for shape, batch in batches.items():
                _visit(found, SeriesKey(arm, shape, number), sessions[arm], batch, timer)
            advance(note=arm)
    return found


class SeriesKey(NamedTuple):
    """The arm, shape and round of a series."""

    arm: str
    shape: Shape
    round: int


def _visit(
    found: DeviceSamples, key: SeriesKey, session: DeviceRuns, batch: Batch, timer: DeviceTimer
) -> None:
    """Time one arm at one shape in one round; a mode that failed is not tried again."""
    run = None
    for mode in MODES:
        if (key.arm, mode, key.shape) in found.untimed:
            continue
        try:
            run = session.prepare(batch, graph=mode == "graph")
            timed = [_series(key, mode, cache, _runs(run, timer, mode, cache)) for cache in CACHES]
        except Exception as err:  # noqa: BLE001 - the other arms are measured all the same
            found.untimed[key.arm, mode, key.shape] = reason_of(err)
            continue
        found.series.extend(timed)
    if run is not None:
        found.copies.append(_copies(run, key, timer))


def _runs(run: DeviceRun, timer: DeviceTimer, mode: Mode, cache: Cache) -> tuple[Sample3, ...]:
    """Seconds of each run by the GPU, by the host, and for enqueueing."""
    for _ in range(WARMUPS):
        run.enqueue()
    timer.gpu.wait(run.stream_handle)
    sample = _sample if mode == "launched" else _sample_of_graph
    return timer.collect(partial(sample, run, timer, cache))


def _sample_of_graph(run: DeviceRun, timer: DeviceTimer, cache: Cache) -> Sample3:
    """One run by the host's clock, and one by the GPU's, whose launch is in no mark."""
    _, host_s, enqueue_s = _sample(run, timer, cache)
    if cache == "cold":
        timer.gpu.flush(run.stream_handle)
    return stream_seconds(timer.gpu, run.stream_handle, run.enqueue), host_s, enqueue_s


def _sample(run: DeviceRun, timer: DeviceTimer, cache: Cache) -> Sample3:
    """One run on an idle stream, by both clocks."""
    gpu, clock = timer.gpu, timer.clock
    if cache == "cold":
        gpu.flush(run.stream_handle)
    gpu.wait(run.stream_handle)
    before = clock()
    first = gpu.mark(run.stream_handle)
    run.enqueue()
    last = gpu.mark(run.stream_handle)
    enqueued = clock()
    gpu.wait(run.stream_handle)
    after = clock()
    return gpu.seconds_between(first, last), (after - before) / 1e9, (enqueued - before) / 1e9


def _copies(run: DeviceRun, key: SeriesKey, timer: DeviceTimer) -> CopySeries:
    """Ids in and logits out, each by its own marks, warmed up once."""
    for copy in (run.copy_to_device, run.copy_to_host):
        copy()

    def both() -> tuple[float, float]:
        """Seconds of one copy each way."""
        times = []
        for copy in (run.copy_to_device, run.copy_to_host):
            timer.gpu.wait(run.stream_handle)
            times.append(stream_seconds(timer.gpu, run.stream_handle, copy))
        return times[0], times[1]

    to_device_s, to_host_s = zip(*timer.collect(both), strict=True)
    return CopySeries(**key._asdict(), to_device_s=to_device_s, to_host_s=to_host_s)


def _series(key: SeriesKey, mode: Mode, cache: Cache, times: Sequence[Sample3]) -> DeviceSeries:
    """The samples, a clock at a time."""
    gpu_s, host_s, enqueue_s = zip(*times, strict=True)
    return DeviceSeries(
        **key._asdict(),
        mode=mode,
        cache=cache,
        gpu_s=gpu_s,
        host_s=host_s,
        enqueue_s=enqueue_s,
    )
