"""The loop that owns the clock, and nothing else.

Arms take turns in rounds, in turned order every other round, so that a machine that slows down or
speeds up does so for all of them. Only one session is open at a time: another's threads and memory
would be beside what is timed, and a runtime may let its idle threads spin.

Sessions run synchronously, so the time around ``run`` is the whole of it, on CUDA with the copies
of ids in and logits out.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from spd_deploy.benchmark.values import Series, Settings, Shape
from spd_deploy.domain.measured import turn
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Session

Clock = Callable[[], int]
"""Nanoseconds that never step back, such as ``time.perf_counter_ns``."""

# A session's first runs touch its memory for the first time.
WARMUP_S = 0.2


def measure(
    openers: Mapping[str, Callable[[], AbstractContextManager[Session]]],
    batches: Mapping[Shape, Batch],
    settings: Settings,
    *,
    clock: Clock,
    progress: Progress,
) -> tuple[Series, ...]:
    """Time every arm at every shape in every round; the series come in the order of the runs."""
    series: list[Series] = []
    with progress.stage("measure", settings.rounds * len(openers)) as advance:
        for number in range(settings.rounds):
            for arm in turn(tuple(openers), number):
                with openers[arm]() as session:
                    series += _visit(arm, session, batches, settings, number, clock)
                advance(note=arm)
    return tuple(series)


def _visit(
    arm: str,
    session: Session,
    batches: Mapping[Shape, Batch],
    settings: Settings,
    number: int,
    clock: Clock,
) -> list[Series]:
    """One arm's part of a round: each shape warmed up, then timed."""
    found = []
    for shape, batch in batches.items():
        warmup_s = timed(
            session,
            batch,
            clock,
            budget_s=min(WARMUP_S, settings.series_s / 4),
            at_least=settings.warmup_runs,
            at_most=settings.max_runs,
        )
        seconds = timed(
            session,
            batch,
            clock,
            budget_s=settings.series_s,
            at_least=settings.min_runs,
            at_most=settings.max_runs,
        )
        found.append(Series(arm=arm, shape=shape, round=number, warmup_s=warmup_s, seconds=seconds))
    return found


def timed(
    session: Session, batch: Batch, clock: Clock, *, budget_s: float, at_least: int, at_most: int
) -> tuple[float, ...]:
    """Seconds of each run: ``at_least`` so many, then until the budget is spent."""
    seconds: list[float] = []
    begun = clock()
    while len(seconds) < at_most:
        before = clock()
        session.run(batch)
        after = clock()
        seconds.append((after - before) / 1e9)
        if len(seconds) >= at_least and (after - begun) / 1e9 >= budget_s:
            break
    return tuple(seconds)
