"""Times several models in interleaved rounds, and says which to take.

One model is open at a time: another's threads and memory would be beside what is timed, and a
runtime may let its idle threads spin.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from statistics import geometric_mean, median
from time import perf_counter_ns
from typing import Any, TypeVar

from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.host_clock import Clock, TimingSettings, collect, seconds_of
from spd_deploy.timing.rounds import interleave

Name = TypeVar("Name", bound=Hashable)
Run = Callable[[Shape], Any]
Opener = Callable[[], AbstractContextManager[Run]]

# A gain below this over the first of several may be noise, and the first is taken.
_MIN_GAIN = 1.05


def time_interleaved(
    openers: Mapping[Name, Opener],
    shapes: Sequence[Shape],
    timing: TimingSettings,
    *,
    clock: Clock = perf_counter_ns,
    seconds: Callable[[Callable[[], Any]], float] | None = None,
    typical: Callable[[Sequence[float]], float] = median,
) -> dict[Name, tuple[tuple[float, ...], ...]]:
    """Median seconds of a warm run: for each model, then for each shape, one median a round.

    ``seconds`` runs a model once and returns its time; None takes that of the host's clock.
    ``typical`` takes the place of the median: the one number that stands for a round's runs.
    """
    sample = seconds or partial(seconds_of, clock=clock)
    medians: dict[Name, list[list[float]]] = {name: [[] for _ in shapes] for name in openers}
    for _, name in interleave(tuple(openers), timing.rounds):
        with openers[name]() as run:
            for rounds, shape in zip(medians[name], shapes, strict=True):
                samples = _samples(partial(run, shape), timing, sample, clock)
                rounds.append(typical(samples))
    return {name: tuple(map(tuple, rounds)) for name, rounds in medians.items()}


def first_unless_faster(seconds: Sequence[Sequence[float]]) -> int:
    """The index of the first of several models, or of the fastest where that is clearly faster.

    Each is given by its seconds at the same shapes, of which the geometric mean decides. Clearly is
    by more than 5 %, since less may be noise.
    """
    means = [geometric_mean(each) for each in seconds]
    best = means.index(min(means))
    return best if means[0] / means[best] > _MIN_GAIN else 0


def _samples(
    run: Callable[[], Any],
    timing: TimingSettings,
    sample: Callable[[Callable[[], Any]], float],
    clock: Clock,
) -> tuple[float, ...]:
    """Seconds of each run of one series, after the warm-up."""
    for _ in range(timing.warmup_runs):
        run()
    return collect(partial(sample, run), timing.series, clock=clock)
