"""How long a client waits for its answer: a field of the body, or a header.

Envoy and Istio send ``X-Envoy-Expected-Rq-Timeout-Ms`` on their own. A request that cannot be
answered in time is refused with 504 before it is queued; one whose time is over leaves the queue.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from serve.headers import header_of
from spd_deploy.domain.errors import DeadlineExceeded, MalformedRequest

ARRIVED = "arrived"  # key of ``scope["state"]``: when the headers were read, by perf_counter
HEADER = "X-Request-Timeout-Ms"
_HEADERS = (HEADER.lower().encode(), b"x-envoy-expected-rq-timeout-ms")
LONGEST_MS = 86_400_000  # a day


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time by which a client wants its answer, by ``time.perf_counter``; None for any."""

    at: float | None = None

    def left_s(self) -> float:
        """Seconds that are left."""
        return float("inf") if self.at is None else self.at - time.perf_counter()

    def refuse_within(self, seconds: float) -> None:
        """Refuse work that is expected to take so many seconds, if they are not left.

        Raises:
            DeadlineExceeded: less time is left.
        """
        if self.at is not None and self.left_s() < seconds:
            raise DeadlineExceeded(
                f"the answer would take about {1000 * seconds:.0f} ms, longer than the request "
                "waits",
                fix="allow more time, or send the request to another server",
            )

    @contextlib.asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """End the block, with what it waits for, when the time is over.

        Raises:
            DeadlineExceeded: it is over.
        """
        if self.at is None:
            yield
            return
        try:
            async with asyncio.timeout(max(0.0, self.left_s())):
                yield
        except TimeoutError:
            raise DeadlineExceeded(
                "the request was not answered in the time that it waits",
                fix="allow more time, or send the request to another server",
            ) from None


NO_DEADLINE = Deadline()


def deadline_of(scope: Mapping[str, Any], timeout_ms: float | None = None) -> Deadline:
    """The deadline of a request: by its body, or by a header; the clock starts at its arrival.

    Raises:
        MalformedRequest: the header is not a number of milliseconds.
    """
    if timeout_ms is None:
        timeout_ms = _told_by_header(scope)
    if timeout_ms is None:
        return NO_DEADLINE
    arrived = scope["state"].get(ARRIVED)
    return Deadline((time.perf_counter() if arrived is None else arrived) + timeout_ms / 1000)


def deadline_in(seconds: float | None) -> Deadline:
    """A deadline so many seconds from now; None for no deadline."""
    return NO_DEADLINE if seconds is None else Deadline(time.perf_counter() + seconds)


def _told_by_header(scope: Mapping[str, Any]) -> int | None:
    """Milliseconds by a header; None where there is none, or 0, Envoy's word for no limit."""
    for name in _HEADERS:
        said = header_of(scope, name)
        if said.isdecimal() and said.isascii():
            return min(int(said[:12]), LONGEST_MS) or None
        if said and name == _HEADERS[0]:
            raise MalformedRequest(
                f"{HEADER} is not a number of milliseconds", fix="send a whole number, such as 250"
            )
    return None
