"""Whether the model answers, as a server must say it at ``/readyz`` and ``/livez``.

Not ready: several batches failed one after the other, and an input that is known to be good fails
too. So a client that sends what the model cannot read does not take the server away from others,
and a model that recovers is ready again. Not alive: a batch runs for far longer than any should,
so that only a new process helps.

Written by the engine's thread and read by any; each value is replaced as a whole.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILURES_TO_DOUBT = 3
CHECK_EVERY_S = 5.0
_TIMES_EXPECTED = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A batch in the model: since when, and how long it may take, in seconds."""

    since: float
    allowed_s: float


class Health:
    """What is known of the model's state."""

    def __init__(
        self, *, stall_timeout_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """A batch may take ``stall_timeout_s``, or ten times what its size promises."""
        self._clock = clock
        self._stall_timeout_s = stall_timeout_s
        self._running: Running | None = None
        self._failures = 0
        self.failing = False

    @property
    def running_s(self) -> float:
        """How long the batch in the model has been running; 0 where there is none."""
        running = self._running
        return 0.0 if running is None else self._clock() - running.since

    @property
    def stalled(self) -> bool:
        """Whether the batch in the model has been running for too long."""
        running = self._running
        return running is not None and self._clock() - running.since > running.allowed_s

    @property
    def in_doubt(self) -> bool:
        """Whether so many batches failed in a row that the model may be at fault."""
        return self._failures >= FAILURES_TO_DOUBT

    def began(self, expected_s: float) -> None:
        """A batch is handed to the model."""
        allowed_s = max(self._stall_timeout_s, _TIMES_EXPECTED * expected_s)
        self._running = Running(self._clock(), allowed_s)

    def ended(self) -> None:
        """The model came back, with or without an answer."""
        self._running = None

    def succeeded(self) -> None:
        """A batch gave at least one row its scores."""
        self._failures = 0

    def failed(self) -> None:
        """A batch gave none."""
        self._failures += 1

    def checked(self, *, good: bool) -> bool:
        """An input that is known to be good was tried; gives whether that changes anything."""
        changed = self.failing is good
        self.failing = not good
        self._failures = 0
        return changed
