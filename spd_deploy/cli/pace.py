"""How long the rest of a stage will take, from how it went so far, and what slows it down."""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from spd_deploy.domain.cores import usable_cores
from spd_deploy.timing.machine_load import cpu_times, others_cores

_OBSERVED_S = 5.0
_BUSY_CORES = 0.5
_LEAST_APART_S = 0.5


@dataclass(slots=True)
class Pace:
    """Remembers when how much was done.

    The first count is where the stage begins: of a resumed training it is what was done before.
    The rate is that of the later half of the time, since steps may become quicker or slower.
    """

    total: int
    clock: Callable[[], float] = time.perf_counter
    _times_s: list[float] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)

    def count(self, done: int) -> None:
        """So much is done now."""
        now = self.clock()
        if not self._times_s or now - self._times_s[-1] >= _LEAST_APART_S:
            self._times_s.append(now)
            self._counts.append(done)

    def left_s(self, done: int) -> float | None:
        """Seconds until all is done; None where nothing was done yet to tell it by."""
        if not self._times_s:
            return None
        now = self.clock()
        middle = (self._times_s[0] + now) / 2
        i = bisect_right(self._times_s, middle) - 1
        steps, seconds = done - self._counts[i], now - self._times_s[i]
        return None if steps <= 0 else (self.total - done) * seconds / steps


def spelled_duration(seconds: float) -> str:
    """Such as ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class BusyWatch:
    """Looks every few seconds whether other processes take cores that this one could use."""

    def __init__(self) -> None:
        self._before = cpu_times()
        self._complaint: list[str] = []

    def complaint(self) -> list[str]:
        """What is to be said of the last few seconds: nothing on a quiet machine."""
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
