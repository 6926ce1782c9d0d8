"""Times several models in turn, and owns the clock.

Models take turns in rounds, in turned order every other round, so that a machine that slows down or
speeds up does so for all of them. One session is open at a time: another's threads and memory would
be beside what is timed, and a runtime may let its idle threads spin.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import geometric_mean, median
from time import perf_counter_ns

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.measured import Name, Shape, turn

Run = Callable[[Shape], object]
Opener = Callable[[], AbstractContextManager[Run]]
Clock = Callable[[], int]
"""Nanoseconds that never step back."""

# Below this gain over the first of several the first is taken: it may be noise.
_LEAST_GAIN = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: time for one model at one shape, over all rounds together.
        rounds: how often each model is opened.
        warmups: untimed runs before each series.
        least: timed runs of a series, even where its time is up.
    """

    seconds: float = 0.3
    rounds: int = 3
    warmups: int = 2
    least: int = 3

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        counts = self.rounds >= 1 and self.warmups >= 1 and self.least >= 1
        if not (counts and 0 < self.seconds < math.inf):
            raise BadSetting(
                "an effort that measures nothing", got=self, fix="use some seconds and rounds"
            )


def in_turns(
    openers: Mapping[Name, Opener],
    shapes: Sequence[Shape],
    effort: Effort,
    *,
    clock: Clock = perf_counter_ns,
) -> dict[Name, tuple[tuple[float, ...], ...]]:
    """For each model, and there for each shape, the median seconds of a run in each round."""
    found: dict[Name, list[list[float]]] = {name: [[] for _ in shapes] for name in openers}
    for number in range(effort.rounds):
        for name in turn(tuple(openers), number):
            with openers[name]() as run:
                for place, shape in enumerate(shapes):
                    found[name][place].append(_series(run, shape, effort, clock))
    return {name: tuple(map(tuple, rounds)) for name, rounds in found.items()}


def quickest(seconds: Sequence[Sequence[float]]) -> int:
    """Which of several, each with its times at the same shapes, has the least geometric mean.

    It is the first one unless another is faster by more than what is lost in noise.
    """
    means = [geometric_mean(each) for each in seconds]
    best = means.index(min(means))
    return best if means[0] / means[best] > _LEAST_GAIN else 0


def _series(run: Run, shape: Shape, effort: Effort, clock: Clock) -> float:
    """Median seconds of one run, once warm."""
    for _ in range(effort.warmups):
        run(shape)
    seconds: list[float] = []
    begun = clock()
    while True:
        before = clock()
        run(shape)
        after = clock()
        seconds.append((after - before) / 1e9)
        if len(seconds) >= effort.least and after - begun >= 1e9 * effort.seconds / effort.rounds:
            return median(seconds)
