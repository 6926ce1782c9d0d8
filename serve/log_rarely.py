"""Logs of what happens again and again: once a minute with a count, or once for good."""

import logging
import time
from collections.abc import Callable

_EVERY_S = 60.0


class Rarely:
    """Logs each kind of message at most once a minute."""

    def __init__(
        self, log: logging.Logger, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._log, self._clock = log, clock
        self._last: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def error(self, kind: str, message: str) -> None:
        """Log ``message``, unless one of its ``kind`` was logged within the last minute."""
        now = self._clock()
        if now - self._last.get(kind, -_EVERY_S) < _EVERY_S:
            self._silent[kind] = self._silent.get(kind, 0) + 1
            return
        self._last[kind] = now
        before = self._silent.pop(kind, 0)
        self._log.error("%s%s", message, f" ({before} times more before)" if before else "")


class Once:
    """Logs each line once."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._logged: set[str] = set()

    def warning(self, line: str) -> None:
        """Log ``line``, unless it was logged before."""
        if line not in self._logged:
            self._logged.add(line)
            self._log.warning("%s", line)
