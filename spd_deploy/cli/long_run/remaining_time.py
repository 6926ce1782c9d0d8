"""The remaining time of a stage, estimated from its progress, and what slows it down."""

import time
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from spd_deploy.domain.cores import usable_cores
from spd_deploy.timing.machine_load import cpu_times, others_cores

_OBSERVED_S = 5.0
_BUSY_CORES = 0.5
_MIN_INTERVAL_S = 0.5


@dataclass(slots=True)
class RemainingTime:
    """Estimates the remaining time of a stage of ``total`` steps.

    The first count is the start of the stage; a resumed training starts with the steps that were
    done before. The rate is that of the second half of the elapsed time, since the speed of steps
    may change. Slow steps do other work beside, as those of a training that update the masks; their
    time is kept apart. The first of them is no estimate of the others, since it prepares them.

    Attributes:
        total: number of steps.
        slow_steps: the steps (from 0) that take longer than the others.
        clock: the time in seconds.
    """

    total: int
    slow_steps: Collection[int] = ()
    clock: Callable[[], float] = time.perf_counter
    _times_s: list[float] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _last: tuple[float, int] | None = None
    _quick_s: float = 0.0
    _slow_s: list[float] = field(default_factory=list)

    def count(self, done: int) -> None:
        """Record that ``done`` steps are done now."""
        now = self.clock()
        if self._last is not None:
            before_s, before = self._last
            if any(before <= step < done for step in self.slow_steps):
                self._slow_s.append(now - before_s)
            else:
                self._quick_s += now - before_s
        self._last = now, done
        if not self._times_s or self._quick_s - self._times_s[-1] >= _MIN_INTERVAL_S:
            self._times_s.append(self._quick_s)
            self._counts.append(done)

    def left_s(self, done: int) -> float | None:
        """Seconds until all steps are done; None if no step but slow ones has been done yet."""
        if self._last is None:
            return None
        middle = (self._times_s[0] + self._quick_s) / 2
        i = bisect_right(self._times_s, middle) - 1
        slow = sum(self._counts[i] <= step < done for step in self.slow_steps)
        steps, seconds = done - self._counts[i] - slow, self._quick_s - self._times_s[i]
        if steps <= 0:
            return None
        slow_left = sum(step >= done for step in self.slow_steps)
        return (self.total - done - slow_left) * seconds / steps + slow_left * self._slow_step_s()

    def _slow_step_s(self) -> float:
        """Mean seconds of a slow step after the first; 0 while only that one is known."""
        later = self._slow_s[1:]
        return sum(later) / len(later) if later else 0.0


def spelled_duration(seconds: float) -> str:
    """A duration for people, such as ``40 s``, ``3 min`` or ``2 h 10 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class BusyWatch:
    """Checks every few seconds whether other processes use cores that this one could use."""

    def __init__(self) -> None:
        self._before = cpu_times()
        self._complaint: list[str] = []

    def complaint(self) -> list[str]:
        """A warning about the last few seconds in a list, or an empty list on a quiet machine."""
        if time.perf_counter() - self._before.clock_s < _OBSERVED_S:
            return self._complaint
        now = cpu_times()
        others = others_cores(self._before, now)
        own = (now.own_s - self._before.own_s) / (now.clock_s - self._before.clock_s)
        self._before, cores = now, usable_cores()
        crowded = others > _BUSY_CORES and own + others > cores - _BUSY_CORES
        self._complaint = (
            [f"other processes keep {others:.1f} of {cores:g} cores busy"] if crowded else []
        )
        return self._complaint
