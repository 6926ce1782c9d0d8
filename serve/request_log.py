"""The request log: a line of JSON for each request, or for a share of them; no text is in it.

    {"time":"2026-11-30T22:10:11.123Z","id":"5f0c2d","protocol":"tei","route":"/predict","rows":1}

A thread writes the lines, so that a reader that hangs or a disk that is full holds no request up.
Lines that it cannot keep up with are dropped and counted.
"""

import contextlib
import json
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any

from serve.request_record import RequestRecord

_log = logging.getLogger(__name__)
_MOST_WAITING = 10_000
_CLOSE_WITHIN_S = 2.0


def line_of(record: RequestRecord, now: datetime) -> dict[str, Any]:
    """The fields of a request that are known; milliseconds have three decimals."""
    work = record.work
    found = {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "id": record.request_id,
        "protocol": record.protocol,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "code": record.code,
        "client": record.client,
        "model": record.model,
        "rows": work and work.rows,
        "tokens": work and work.tokens,
        "windows": work and work.windows,
        "truncated": work and work.truncated,
        "total_ms": _ms(record.total_s),
        "read_ms": _ms(None if record.read is None else record.read - record.since),
        "tok_queue_ms": None if work is None else _ms(work.tok_queue_s),
        "tok_ms": None if work is None else _ms(work.tok_s),
        "queue_ms": None if work is None else _ms(work.queue_s),
        "run_ms": None if work is None else _ms(work.run_s),
        "trace_id": record.trace_id,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


class RequestLog:
    """Writes lines to a file descriptor."""

    def __init__(
        self,
        descriptor: int,
        *,
        share: float = 1.0,
        dropped: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Start the thread.

        Args:
            descriptor: gets the lines; it stays open.
            share: of the requests that get a line, above 0 and up to 1.
            dropped: called for each line that is dropped.
            draw: a random number from 0 to below 1.
        """
        self._descriptor, self._share = descriptor, share
        self._dropped, self._draw = dropped, draw
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._broken = False
        self._thread = threading.Thread(target=self._work, name="spd-request-log", daemon=True)
        self._thread.start()

    def observe(self, record: RequestRecord) -> None:
        """Write a line for the request, if it is one of the share."""
        if self._share < 1 and self._draw() >= self._share:
            return
        if self._lines.qsize() >= _MOST_WAITING:
            self._dropped()
            return
        self._lines.put(json.dumps(line_of(record, datetime.now(UTC)), separators=(",", ":")))

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        self._lines.put(None)
        self._thread.join(_CLOSE_WITHIN_S)

    def _work(self) -> None:
        """Write lines until :meth:`close`; this is the thread's function."""
        while (line := self._lines.get()) is not None:
            lines, ends = [line], False
            for more in self._waiting():
                if ends := more is None:
                    break
                lines.append(more)
            self._write("".join(f"{one}\n" for one in lines).encode("ascii"), len(lines))
            if ends:
                return

    def _waiting(self) -> Iterator[str | None]:
        """The lines that wait at this moment."""
        with contextlib.suppress(Empty):
            while True:
                yield self._lines.get_nowait()

    def _write(self, data: bytes, lines: int) -> None:
        """Write all bytes; a failure is logged once, until writing succeeds again."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as err:
            for _ in range(lines):
                self._dropped()
            if not self._broken:
                _log.error("the request log cannot be written: %s", err.strerror)
            self._broken = True
        else:
            self._broken = False


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
