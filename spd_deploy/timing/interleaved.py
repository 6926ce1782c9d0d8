"""Times several models in interleaved rounds, and says which is the fastest.

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
from spd_deploy.timing.host_clock import Clock, Effort, collect, seconds_of
from spd_deploy.timing.rounds import interleave

Name = TypeVar("Name", bound=Hashable)
Run = Callable[[Shape], Any]
Opener = Callable[[], AbstractContextManager[Run]]

# A gain below this over the first of several may be noise, and the first is taken.
_LEAST_GAIN = 1.05


def time_interleaved(
    openers: Mapping[Name, Opener],
    shapes: Sequence[Shape],
    effort: Effort,
    *,
    clock: Clock = perf_counter_ns,
    seconds: Callable[[Callable[[], Any]], float] | None = None,
) -> dict[Name, tuple[tuple[float, ...], ...]]:
    """Median seconds of a warm run: for each model, then for each shape, one median a round.

    ``seconds`` runs a model once and returns its time; None takes that of the host's clock.
    """
    sample = seconds or partial(seconds_of, clock=clock)
    medians: dict[Name, list[list[float]]] = {name: [[] for _ in shapes] for name in openers}
    for _, name in interleave(tuple(openers), effort.rounds):
        with openers[name]() as run:
            for rounds, shape in zip(medians[name], shapes, strict=True):
                rounds.append(_median_s(partial(run, shape), effort, sample, clock))
    return {name: tuple(map(tuple, rounds)) for name, rounds in medians.items()}


def fastest(seconds: Sequence[Sequence[float]]) -> int:
    """The index of the fastest of several models, each given by its seconds at the same shapes.

    The geometric mean over the shapes decides. The first model is kept unless another is more than
    5 % faster, since less may be noise.
    """
    means = [geometric_mean(each) for each in seconds]
    best = means.index(min(means))
    return best if means[0] / means[best] > _LEAST_GAIN else 0


def _median_s(
    run: Callable[[], Any],
    effort: Effort,
    sample: Callable[[Callable[[], Any]], float],
    clock: Clock,
) -> float:
    """Median seconds of one run, after the warm-up."""
    for _ in range(effort.warmup_runs):
        run()
    return median(collect(partial(sample, run), effort.series, clock=clock))
