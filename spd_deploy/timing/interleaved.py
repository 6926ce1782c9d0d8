"""Times several models in interleaved rounds by the host's clock, and says which is the fastest.

One model is open at a time: another's threads and memory would be beside what is timed, and a
runtime may let its idle threads spin.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from statistics import geometric_mean, median
from time import perf_counter_ns
from typing import TypeVar

from spd_deploy.domain.measured import Shape
from spd_deploy.timing.host_clock import Clock, Effort, time_runs
from spd_deploy.timing.rounds import interleave

Name = TypeVar("Name", bound=str)
Run = Callable[[Shape], object]
Opener = Callable[[], AbstractContextManager[Run]]

# A gain below this over the first of several may be noise, and the first is taken.
_LEAST_GAIN = 1.05


def time_interleaved(
    openers: Mapping[Name, Opener],
    shapes: Sequence[Shape],
    effort: Effort,
    *,
    clock: Clock = perf_counter_ns,
) -> dict[Name, tuple[tuple[float, ...], ...]]:
    """Median seconds of a warm run: for each model, then for each shape, one median a round."""
    medians: dict[Name, list[list[float]]] = {name: [[] for _ in shapes] for name in openers}
    for _, name in interleave(tuple(openers), effort.rounds):
        with openers[name]() as run:
            for rounds, shape in zip(medians[name], shapes, strict=True):
                rounds.append(_median_s(partial(run, shape), effort, clock))
    return {name: tuple(map(tuple, rounds)) for name, rounds in medians.items()}


def fastest(seconds: Sequence[Sequence[float]]) -> int:
    """The index of the fastest of several models, each given by its seconds at the same shapes.

    The geometric mean over the shapes decides. The first model is kept unless another is more than
    5 % faster, since less may be noise.
    """
    means = [geometric_mean(each) for each in seconds]
    best = means.index(min(means))
    return best if means[0] / means[best] > _LEAST_GAIN else 0


def _median_s(run: Callable[[], object], effort: Effort, clock: Clock) -> float:
    """Median seconds of one run, after the warm-up."""
    for _ in range(effort.warmup_runs):
        run()
    return median(time_runs(run, effort.series, clock=clock))
