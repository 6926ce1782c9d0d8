"""Times every arm at every shape in interleaved rounds by the host's clock.

Sessions run synchronously, so the time around ``run`` is the whole of it, on CUDA with the copies
of ids in and logits out.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial

from spd_deploy.benchmark.records import BenchmarkSettings, Series, Shape
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Clock, time_runs
from spd_deploy.timing.rounds import interleave


def measure(
    openers: Mapping[str, Callable[[], AbstractContextManager[Session]]],
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    *,
    clock: Clock,
    progress: Progress,
) -> tuple[Series, ...]:
    """Time every arm at every shape in every round; the series come in the order of the runs."""
    series: list[Series] = []
    with progress.stage("measure", settings.rounds * len(openers)) as advance:
        for number, arm in interleave(tuple(openers), settings.rounds):
            with openers[arm]() as session:
                series += _visit(arm, session, batches, settings, number, clock)
            advance(note=arm)
    return tuple(series)


def _visit(
    arm: str,
    session: Session,
    batches: Mapping[Shape, Batch],
    settings: BenchmarkSettings,
    number: int,
    clock: Clock,
) -> Iterator[Series]:
    """One arm in one round: each shape warmed up, then timed."""
    for shape, batch in batches.items():
        run = partial(session.run, batch)
        warmup_s = time_runs(run, settings.warmup, clock=clock)
        seconds = time_runs(run, settings.series, clock=clock)
        yield Series(arm=arm, shape=shape, round=number, warmup_s=warmup_s, seconds=seconds)
