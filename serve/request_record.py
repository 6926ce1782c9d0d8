"""The record of a request for the request log and the tracing: numbers and names, no text.

The middleware, or gRPC's handler, makes the record. Whatever works on the request finds it by a
context variable, so that no handler has to pass it on.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from spd_deploy.domain.text import Tokens

OTHER = "other"  # the route of a path that does not exist


@dataclass(slots=True)
class ModelWork:
    """The model's work for a request; ``queue_s`` and ``run_s`` are those of its slowest row.

    ``since`` is when the texts were handed over, by ``time.perf_counter``.
    """

    model: str
    rows: int
    since: float = field(default_factory=time.perf_counter)
    tokens: int | None = None
    windows: int | None = None
    truncated: int | None = None
    tok_queue_s: float | None = None
    tok_s: float | None = None
    queue_s: float | None = None
    run_s: float | None = None

    def tokenised(self, rows: Sequence[Tokens], tok_s: float, *, queue_s: float = 0.0) -> None:
        """Note the rows, the seconds that tokenising them took, and those of its wait before."""
        self.tokens = sum(row.n_read for row in rows)
        self.windows = sum(len(row.windows) for row in rows)
        self.truncated = sum(row.dropped > 0 for row in rows)
        self.tok_queue_s, self.tok_s = queue_s, tok_s

    def ran(self, queue_s: float, run_s: float) -> None:
        """Note the seconds of the slowest row in the queue and in the model."""
        self.queue_s, self.run_s = queue_s, run_s


@dataclass(slots=True)
class RequestRecord:
    """One request.

    Attributes:
        request_id: as the header ``X-Request-Id`` has it.
        method: of HTTP; ``POST`` for gRPC.
        since: when its headers had arrived, by ``time.perf_counter``.
        read: when its body had arrived, likewise.
        ended: when its answer was sent, likewise.
        protocol: the name of the protocol.
        route: the path as the metrics name it; values in it are left out.
        probe: it was a probe or a scrape, which come every few seconds and are not logged.
        client: the name of the API key's client.
        model: the name of the model that was asked; empty for none.
        status: of HTTP; gRPC's errors have that of their kind.
        code: of the error that it ended in.
        traceparent: the trace that it belongs to, as its header has it.
        tracestate: likewise.
        trace_id: of the span that was made for it.
        work: the model's work; None before that begins.
    """

    request_id: str
    method: str
    since: float = field(default_factory=time.perf_counter)
    read: float | None = None
    ended: float = 0.0
    protocol: str = ""
    route: str = OTHER
    probe: bool = False
    client: str = ""
    model: str = ""
    status: int = 0
    code: str = ""
    traceparent: str = ""
    tracestate: str = ""
    trace_id: str = ""
    work: ModelWork | None = None

    @property
    def total_s(self) -> float:
        """Seconds from the headers to the end of the answer."""
        return self.ended - self.since


class Observer(Protocol):
    """Gets every request but probes after its answer was sent, in the event loop."""

    def observe(self, record: RequestRecord) -> None:
        """Take note of a request."""
        ...

    def close(self) -> None:
        """Hand on what is not handed on yet; called in a thread when the server ends."""
        ...


_current: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


@contextmanager
def recording(record: RequestRecord) -> Iterator[None]:
    """Let what works on the request find its record until the block ends."""
    token = _current.set(record)
    try:
        yield
    finally:
        _current.reset(token)


def body_arrived() -> None:
    """Note that the request's body was read to its end."""
    if (record := _current.get()) is not None:
        record.read = time.perf_counter()


def ask_model(model: str) -> None:
    """Note the model that the request is for, even if it refuses the request."""
    if (record := _current.get()) is not None:
        record.model = model


def begin_work(model: str, rows: int) -> ModelWork:
    """Note that a model begins to work on rows of the request.

    The first work is the request's. That of another model beside it is not.
    """
    work, record = ModelWork(model, rows), _current.get()
    if record is not None and record.work is None:
        record.work, record.model = work, model
    return work
