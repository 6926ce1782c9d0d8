"""The loops that own the GPU's clock: runs, launched or by graph, with the L2 hot or cold; copies.

Each run starts on an idle stream, so that the host's time and the GPU's are of this run alone. The
marks lie directly around the call that enqueues it: where the host is slower than the GPU, the
GPU's time has waits for the host in it, as it has in use, and the enqueueing shows why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spd_deploy.benchmark.cuda.place import Gpu
from spd_deploy.benchmark.gpu_values import (
    CACHES,
    MODES,
    Absent,
    Cache,
    Copies,
    DeviceSeries,
    Mode,
)
from spd_deploy.benchmark.measure import Clock
from spd_deploy.benchmark.values import Settings, Shape
from spd_deploy.domain.errors import reason_of
from spd_deploy.domain.measured import turn
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.device import DeviceRun, DeviceRuns

WARMUPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Timer:
    """Both clocks, and how long to measure."""

    gpu: Gpu
    clock: Clock
    settings: Settings

    @property
    def budget_s(self) -> float:
        """Time for one way of one series: its share with the others and the copies."""
        return self.settings.series_s / (len(MODES) * len(CACHES) + 1)

    def turns(self) -> Iterator[int]:
        """Counts runs: the least number of them, then until the time or the most is reached."""
        begun = self.clock()
        for number in range(self.settings.max_runs):
            yield number
            enough = number + 1 >= self.settings.min_runs
            if enough and (self.clock() - begun) / 1e9 >= self.budget_s:
                return


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the rounds have given so far; ``untimed`` holds reasons by arm and way."""

    series: list[DeviceSeries] = field(default_factory=list)
    copies: list[Copies] = field(default_factory=list)
    untimed: dict[str, dict[str, str]] = field(default_factory=dict)

    def untimed_of(self, arm: str) -> tuple[Absent, ...]:
        """The ways that an arm could not be run, with the reasons."""
        found = self.untimed.get(arm, {})
        return tuple(Absent(name=name, reason=reason) for name, reason in found.items())


def time_arms(
    sessions: Mapping[str, DeviceRuns],
    batches: Mapping[Shape, Batch],
    timer: Timer,
    *,
    progress: Progress,
) -> Found:
    """Every arm at every shape, every way, in every round, in turned order every other round."""
    found, rounds = Found(), timer.settings.rounds
    with progress.stage("measure on the GPU", rounds * len(sessions)) as advance:
        for number in range(rounds):
            for arm in turn(tuple(sessions), number):
                for shape, batch in batches.items():
                    _visit(found, Place(arm, shape, number), sessions[arm], batch, timer)
                advance(note=arm)
    return found


class Place(NamedTuple):
    """Whose series it is."""

    arm: str
    shape: Shape
    round: int


def _visit(found: Found, place: Place, session: DeviceRuns, batch: Batch, timer: Timer) -> None:
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


def _runs(run: DeviceRun, timer: Timer, cache: Cache) -> list[tuple[float, float, float]]:
    """Seconds of each run by the GPU, by the host, and for enqueueing."""
    gpu, clock, times = timer.gpu, timer.clock, []
    for _ in range(WARMUPS):
        run.enqueue()
    gpu.wait(run.stream)
    for _ in timer.turns():
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
        on_gpu_s = gpu.between_s(first, last)
        times.append((on_gpu_s, (after - before) / 1e9, (enqueued - before) / 1e9))
    return times


def _copies(run: DeviceRun, place: Place, timer: Timer) -> Copies:
    """Ids in and logits out, each by its own marks, warmed up once."""
    for copy in (run.load, run.unload):
        copy()
    to_device_s: list[float] = []
    to_host_s: list[float] = []
    for _ in timer.turns():
        for copy, seconds in ((run.load, to_device_s), (run.unload, to_host_s)):
            timer.gpu.wait(run.stream)
            seconds.append(marked_s(timer.gpu, run.stream, copy))
    return Copies(**place._asdict(), to_device_s=tuple(to_device_s), to_host_s=tuple(to_host_s))


def marked_s(gpu: Gpu, stream: int, enqueue: Callable[[], object]) -> float:
    """Seconds of what is enqueued, by the GPU's clock; waits for it."""
    first = gpu.mark(stream)
    enqueue()
    last = gpu.mark(stream)
    gpu.wait(stream)
    return gpu.between_s(first, last)


def _series(
    place: Place, mode: Mode, cache: Cache, times: Sequence[tuple[float, float, float]]
) -> DeviceSeries:
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
