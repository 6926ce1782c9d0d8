"""Health of the model, as ``/readyz`` and ``/livez`` report it.

The server is not ready while the model fails: several batches in a row failed and an input that is
known to be good failed too. A client that sends unreadable input therefore cannot make the server
unready, and a model that recovers becomes ready again. The server is not alive when a batch runs
for far longer than expected, because then only a restart helps.

The engine's thread writes and any thread reads; each value is replaced as a whole.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILURES_BEFORE_PROBE = 3
CHECK_EVERY_S = 5.0
_TIMES_EXPECTED = 10.0


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """A batch in the model: when it started, and the seconds that it should and may take."""

    since: float
    expected_s: float
    allowed_s: float


class Health:
    """Counts failures and times the running batch."""

    def __init__(
        self, *, stall_timeout_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """A batch may take ``stall_timeout_s`` or ten times its expected time, what is longer."""
        self._clock = clock
        self._stall_timeout_s = stall_timeout_s
        self._running: RunningBatch | None = None
        self._failures = 0
        self.failing = False

    @property
    def running_s(self) -> float:
        """Seconds that the running batch has taken so far; 0 where none runs."""
        running = self._running
        return 0.0 if running is None else self._clock() - running.since

    @property
    def stalled(self) -> bool:
        """Whether the running batch has exceeded its allowed time."""
        running = self._running
        return running is not None and self._clock() - running.since > running.allowed_s

    @property
    def left_s(self) -> float:
        """Seconds that the running batch should still take; 0 where none runs."""
        running = self._running
        return 0.0 if running is None else max(0.0, running.expected_s - self.running_s)

    @property
    def hang(self) -> str:
        """For how long the running batch has hung, for who asks why; empty while it does not."""
        running = self._running
        if running is None or not self.stalled:
            return ""
        pace = f"; {running.expected_s:.3g} s were expected" if running.expected_s else ""
        return f"a batch hangs in the model for {self._clock() - running.since:.0f} s{pace}"

    @property
    def suspect(self) -> bool:
        """Whether so many batches failed in a row that the model must be probed."""
        return self._failures >= FAILURES_BEFORE_PROBE

    def began(self, expected_s: float) -> None:
        """Note that a batch starts, with the seconds that its size promises."""
        allowed_s = max(self._stall_timeout_s, _TIMES_EXPECTED * expected_s)
        self._running = RunningBatch(self._clock(), expected_s, allowed_s)

    def ended(self) -> None:
        """Note that the model returned or raised."""
        self._running = None

    def succeeded(self) -> None:
        """Note a batch in which at least one row got finite scores."""
        self._failures = 0

    def failed(self) -> None:
        """Note a batch in which no row got finite scores."""
        self._failures += 1

    def checked(self, *, good: bool) -> bool:
        """Note the result of the probe; returns whether it changes ``failing``."""
        changed = self.failing is good
        self.failing = not good
        self._failures = 0
        return changed
