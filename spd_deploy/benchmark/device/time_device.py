"""The loops that own the GPU's clock: runs, launched or by graph, with the L2 hot or cold; copies.

Each run starts on an idle stream, so that the host's time and the GPU's are of this run alone. The
marks lie directly around the call that enqueues it: where the host is slower than the GPU, the
GPU's time has waits for the host in it, as it has in use, and the enqueueing shows why.
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
    Skipped,
)
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.domain.errors import reason_of
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device_runs import DeviceRun, DeviceRuns
from spd_deploy.timing.cuda_clock import DeviceClock, stream_seconds
from spd_deploy.timing.host_clock import Budget, Clock, collect
from spd_deploy.timing.rounds import interleave

WARMUPS = 3
Sample = TypeVar("Sample")
Sample3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTimer:
    """Both clocks, and how long to measure."""

    gpu: DeviceClock
    clock: Clock
    settings: BenchmarkSettings

    @property
    def budget(self) -> Budget:
        """One way of one series: its share of the time with the others and the copies."""
        series = self.settings.series
        return replace(series, seconds=series.seconds / (len(MODES) * len(CACHES) + 1))

    def collect(self, sample: Callable[[], Sample]) -> tuple[Sample, ...]:
        """Samples until the budget is spent."""
        return collect(sample, self.budget, clock=self.clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSamples:
    """What the rounds have given so far; ``untimed`` holds reasons by arm and way."""

    series: list[DeviceSeries] = field(default_factory=list)
    copies: list[CopySeries] = field(default_factory=list)
    untimed: dict[str, dict[str, str]] = field(default_factory=dict)

    def untimed_of(self, arm: str) -> tuple[Skipped, ...]:
        """The ways that an arm could not be run, with the reasons."""
        found = self.untimed.get(arm, {})
        return tuple(Skipped(name=name, reason=reason) for name, reason in found.items())


def time_arms(
    sessions: Mapping[str, DeviceRuns],
    batches: Mapping[Shape, Batch],
    timer: DeviceTimer,
    *,
    progress: Progress,
) -> DeviceSamples:
    """Every arm at every shape, every way, in every round, in turned order every other round."""
    found, rounds = DeviceSamples(), timer.settings.rounds
    with progress.stage("measure on the GPU", rounds * len(sessions)) as advance:
        for number, arm in interleave(tuple(sessions), rounds):
            for shape, batch in batches.items():
                _visit(found, SeriesKey(arm, shape, number), sessions[arm], batch, timer)
            advance(note=arm)
    return found


class SeriesKey(NamedTuple):
    """Whose series it is."""

    arm: str
    shape: Shape
    round: int


def _visit(
    found: DeviceSamples, place: SeriesKey, session: DeviceRuns, batch: Batch, timer: DeviceTimer
) -> None:
    """One arm at one shape in one round, each way; what cannot be run is not tried again."""
    refused = found.untimed.setdefault(place.arm, {})
    run = None
    for mode in MODES:
        if (way := f"{mode} at {place.shape}") in refused:
            continue
        try:
            run = session.prepare(batch, graph=mode == "graph")
            timed = [_series(place, mode, cache, _runs(run, timer, cache)) for cache in CACHES]
        except Exception as err:  # noqa: BLE001 - the other arms are measured all the same
            refused[way] = reason_of(err)
            continue
        found.series.extend(timed)
    if run is not None:
        found.copies.append(_copies(run, place, timer))


def _runs(run: DeviceRun, timer: DeviceTimer, cache: Cache) -> tuple[Sample3, ...]:
    """Seconds of each run by the GPU, by the host, and for enqueueing."""
    for _ in range(WARMUPS):
        run.enqueue()
    timer.gpu.wait(run.stream)
    return timer.collect(partial(_sample, run, timer, cache))


def _sample(run: DeviceRun, timer: DeviceTimer, cache: Cache) -> Sample3:
    """One run on an idle stream, by both clocks."""
    gpu, clock = timer.gpu, timer.clock
    if cache == "cold":
        gpu.flush(run.stream)
    gpu.wait(run.stream)
    before = clock()
    first = gpu.mark(run.stream)
    run.enqueue()
    last = gpu.mark(run.stream)
    enqueued = clock()
    gpu.wait(run.stream)
    after = clock()
    return gpu.seconds_between(first, last), (after - before) / 1e9, (enqueued - before) / 1e9


def _copies(run: DeviceRun, place: SeriesKey, timer: DeviceTimer) -> CopySeries:
    """Ids in and logits out, each by its own marks, warmed up once."""
    for copy in (run.load, run.unload):
        copy()

    def both() -> tuple[float, float]:
        """Seconds of one copy each way."""
        times = []
        for copy in (run.load, run.unload):
            timer.gpu.wait(run.stream)
            times.append(stream_seconds(timer.gpu, run.stream, copy))
        return times[0], times[1]

    to_device_s, to_host_s = zip(*timer.collect(both), strict=True)
    return CopySeries(**place._asdict(), to_device_s=to_device_s, to_host_s=to_host_s)


def _series(place: SeriesKey, mode: Mode, cache: Cache, times: Sequence[Sample3]) -> DeviceSeries:
    """The samples, a clock at a time."""
    gpu_s, host_s, enqueue_s = zip(*times, strict=True)
    return DeviceSeries(
        **place._asdict(),
        mode=mode,
        cache=cache,
        gpu_s=gpu_s,
        host_s=host_s,
        enqueue_s=enqueue_s,
    )
