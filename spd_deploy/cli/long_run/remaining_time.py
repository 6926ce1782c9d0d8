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

    The first call of ``count`` starts the clock. A resumed training then passes the steps that an
    earlier process has done. Quick steps are estimated by those of the second half of the elapsed
    time, since their speed may change. Slow steps, such as those that update masks in a training,
    are estimated by the earlier slow ones without the first, which also prepares the others.

    Attributes:
        total: number of steps.
        slow_steps: the numbers, from 0, of the steps that take longer than the others.
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


class BusyWatch:
    """Checks every few seconds whether other processes use cores that this one could use."""

    def __init__(self) -> None:
        self._before = cpu_times()
        self._warnings: list[str] = []

    def warnings(self) -> list[str]:
        """A warning if other processes took cores in the last seconds; empty on a quiet machine."""
        if time.perf_counter() - self._before.clock_s < _OBSERVED_S:
            return self._warnings
        now = cpu_times()
        others = others_cores(self._before, now)
        own = (now.own_s - self._before.own_s) / (now.clock_s - self._before.clock_s)
        self._before, cores = now, usable_cores()
        crowded = others > _BUSY_CORES and own + others > cores - _BUSY_CORES
        self._warnings = (
            [f"other processes keep {others:.1f} of {cores:g} cores busy"] if crowded else []
        )
        return self._warnings
