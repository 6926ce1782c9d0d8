"""The remaining time of a stage, estimated from its progress, and what slows it down."""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from spd_deploy.domain.cores import usable_cores
from spd_deploy.timing.machine_load import cpu_times, others_cores

_OBSERVED_S = 5.0
_BUSY_CORES = 0.5
_MIN_INTERVAL_S = 0.5


@dataclass(slots=True)
class Pace:
    """Estimates the remaining time of a stage of ``total`` items.

    The first count is the start of the stage; a resumed training starts with the steps that were
    done before. The rate is that of the second half of the elapsed time, since the speed of steps
    may change.
    """

    total: int
    clock: Callable[[], float] = time.perf_counter
    _times_s: list[float] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)

    def count(self, done: int) -> None:
        """Record that ``done`` items are done now."""
        now = self.clock()
        if not self._times_s or now - self._times_s[-1] >= _MIN_INTERVAL_S:
            self._times_s.append(now)
            self._counts.append(done)

    def left_s(self, done: int) -> float | None:
        """Seconds until all items are done; None if no item has been done yet."""
        if not self._times_s:
            return None
        now = self.clock()
        middle = (self._times_s[0] + now) / 2
        i = bisect_right(self._times_s, middle) - 1
        steps, seconds = done - self._counts[i], now - self._times_s[i]
        return None if steps <= 0 else (self.total - done) * seconds / steps


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
