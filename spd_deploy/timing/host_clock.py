"""The host's clock: how long calls take that return when their work is done."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TypeVar

from spd_deploy.domain.errors import BadSetting

Sample = TypeVar("Sample")
Clock = Callable[[], int]
"""Nanoseconds that never step back, such as ``time.perf_counter_ns``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeBudget:
    """When a series of samples ends.

    Attributes:
        seconds: time of the series.
        at_least: samples, even where the time is up.
        at_most: samples, even where there is time left.
    """

    seconds: float
    at_least: int
    at_most: int = 10_000


def collect(
    sample: Callable[[], Sample], budget: TimeBudget, *, clock: Clock = perf_counter_ns
) -> tuple[Sample, ...]:
    """Call ``sample`` until the budget is spent, and return what it gave each time."""
    samples: list[Sample] = []
    begun = clock()
    while len(samples) < budget.at_most:
        samples.append(sample())
        if len(samples) >= budget.at_least and (clock() - begun) / 1e9 >= budget.seconds:
            break
    return tuple(samples)


def time_runs(
    run: Callable[[], object], budget: TimeBudget, *, clock: Clock = perf_counter_ns
) -> tuple[float, ...]:
    """Seconds of each call of ``run``, until the budget is spent."""
    return collect(lambda: seconds_of(run, clock=clock), budget, clock=clock)


def seconds_of(run: Callable[[], object], *, clock: Clock = perf_counter_ns) -> float:
    """Seconds that one call of ``run`` takes."""
    before = clock()
    run()
    return (clock() - before) / 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingSettings:
    """Time and number of runs of a measurement.

    Attributes:
        seconds: time for one model at one shape, over all rounds together.
        rounds: how often each model is opened and timed.
        warmup_runs: untimed runs before each series.
        min_runs: timed runs of a series, even where its time is up.
        max_runs: timed runs of a series, even where it has time left.
    """

    seconds: float = 0.3
    rounds: int = 3
    warmup_runs: int = 2
    min_runs: int = 3
    max_runs: int = 10_000

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        counts = self.rounds >= 1 and self.warmup_runs >= 1 <= self.min_runs <= self.max_runs
        if not (counts and 0 < self.seconds < math.inf):
            raise BadSetting(
                "these settings measure nothing", got=self, fix="use some seconds and rounds"
            )

    @property
    def series(self) -> TimeBudget:
        """One series: its share of the time."""
        return TimeBudget(
            seconds=self.seconds / self.rounds, at_least=self.min_runs, at_most=self.max_runs
        )
