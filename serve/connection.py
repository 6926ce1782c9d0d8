"""One HTTP/1.1 connection: uvicorn's, with checks, deadlines and limits that uvicorn leaves out.

The app answers malformed and unsupported HTTP itself. The connection starts the request with the
error in its scope (``http_errors.PROTOCOL_ERROR``), so that it gets the usual JSON body, an id and
its metrics. The connection is closed afterwards, since the start of a next request is not known.

A request that does not arrive within its deadline, or for whose body there is no room, is refused
in the same way. Of the requests that a client sends before it has its answers, so many are kept as
``max_pipelined`` says; the connection is closed after their answers.

An ``Upgrade`` to another protocol, such as the ``h2c`` of curl and of Java's client, is declined as
HTTP asks: the request is answered as if the header were missing.
"""

import asyncio
import socket
from asyncio import BaseTransport, Transport
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serve.connection_pool import FREE_BYTES, PROBES, ConnectionPool
from serve.http_errors import PROTOCOL_ERROR
from serve.http_rules import (
    MAX_HEAD_BYTES,
    head_too_long,
    refusal_of,
    size_of,
    without_upgrade,
)
from serve.response_transport import ResponseTransport
from spd_deploy.domain.errors import Overloaded


class TooManyPipelined(Exception):
    """Ends the parsing of a connection's bytes; the parser's callbacks raise it."""


class Connection(HttpToolsProtocol):
    """A connection that refuses malformed, slow and excessive HTTP through the app."""

    def __init__(self, *args: Any, pool: ConnectionPool, **kwargs: Any) -> None:
        """``pool`` has the limits, and all other connections; the rest is uvicorn's."""
        super().__init__(*args, **kwargs)
        self._pool, self._limits = pool, pool.settings

    def connection_made(self, transport: BaseTransport) -> None:
        """Set TCP_NODELAY, and send the head of a response together with its body.

        With Nagle's algorithm a response in several packets would wait for the client's delayed
        acknowledgement of the first: 40 ms.
        """
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head_bytes = 0
        self._in_head = self._in_body = self._upgrading = self._over = False
        self._running: RequestResponseCycle | None = None
        # Bytes of the bodies whose requests are not answered, in their order.
        self._held: deque[int] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        super().connection_made(cast("Transport", transport))
        self._responses = self.transport = ResponseTransport(
            self.transport,
            write_timeout_s=self._limits.write_timeout_s,
            still_sends=lambda: self._over or self._in_body,
        )
        self._has_room = self._pool.opened(self)
        if self._pool.full:
            self._responses.abort()
            return
        self._end_in(self._limits.header_timeout_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the requests that are not answered; uvicorn tells only the newest."""
        self._forget_deadline()
        self._unset_keepalive_if_required()
        self._responses.forget()
        self._pool.closed(self, sum(self._held))
        self._held.clear()
        left = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._running, *left):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close the connection to make room for another."""
        self._responses.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes; bytes after a refused request are dropped."""
        if self.transport.is_closing():  # it lingers
            return
        while data and not self._over:
            data = self._parse(data)
        if self._over:
            return
        if (self._in_head and self._head_bytes > MAX_HEAD_BYTES) or (
            self._in_body and size_of(self.headers) > MAX_HEAD_BYTES
        ):
            self._refuse(head_too_long())
        elif self._deadline is None:
            self._set_deadline()

    def on_message_begin(self) -> None:
        """Note that a request begins; the parser's callback.

        Raises:
            TooManyPipelined: too many earlier ones of this connection are not answered yet.
        """
        if self._over:
            return
        if len(self.pipeline) >= self._limits.max_pipelined:
            self._over = True
            self.cycle.keep_alive = False
            raise TooManyPipelined
        self._in_head = True
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request, or refuse it by its headers; the parser's callback."""
        if self._over:
            return
        if self.parser.get_method() == b"CONNECT":
            self._refuse(HTTPException(501, "CONNECT is not supported; this server is not a proxy"))
        elif self.parser.should_upgrade():
            self._upgrading = True
        elif refusal := refusal_of(self.parser.get_http_version(), self.headers):
            self._refuse(refusal)
        elif not self._has_room and self.url.partition(b"?")[0] not in PROBES:
            self._refuse(self._pool.refuse_connection())
        else:
            self._begin()
            self._in_head, self._in_body = False, True

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; the parser's callback."""
        if self._over:
            return
        super().on_body(body)
        if not self.cycle.response_complete:
            self._hold(len(body))

    def on_message_complete(self) -> None:
        """Note that the request is complete; the parser's callback."""
        self._head_bytes = 0
        if not (self._over or self._upgrading):
            self._in_body = False
            self._forget_deadline()
            if not self.cycle.response_complete:
                self._pool.works(self)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send a head that no body followed, and let go of the request; uvicorn's callback."""
        self._responses.flush()
        held = self._held.popleft()
        self._pool.held_bytes -= held
        super().on_response_complete()
        if not self.pipeline:
            self._pool.waits(self)

    def pause_writing(self) -> None:
        """Wait for a client that does not read; the transport's callback."""
        super().pause_writing()
        self._responses.writing_stopped()

    def resume_writing(self) -> None:
        """Go on sending; the transport's callback."""
        super().resume_writing()
        self._responses.writing_resumed()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Remember the request that runs; uvicorn's method."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _begin(self) -> None:
        """Start the request, or queue it behind an earlier one of the connection.

        uvicorn stops reading where it queues; the client's departure would then go unnoticed.
        """
        self._forget_deadline()
        self._unset_keepalive_if_required()
        # The first bytes of a body are free, unless it is behind others of its connection.
        self._body_bytes, self._free_bytes = 0, 0 if self._held else FREE_BYTES
        self._held.append(0)
        super().on_headers_complete()
        self.headers = []  # trailers must not become headers
        self.flow.resume_reading()

    def _hold(self, size: int) -> None:
        """Count bytes of a body; refuse the request where there is no room for them."""
        self._body_bytes += size
        added = max(0, self._body_bytes - self._free_bytes) - self._held[-1]
        self._held[-1] += added
        self._pool.held_bytes += added
        if added and (refusal := self._pool.refuse_bytes()):
            self._refuse(refusal)

    def _parse(self, data: bytes) -> bytes:
        """Feed ``data`` to the parser, and return what it must be fed next."""
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return b"" if self._over else self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            if not self._over:
                self._refuse(HTTPException(400, "the request is not HTTP/1.1; use an HTTP client"))
        return b""

    def _without_upgrade(self) -> bytes:
        """The head that was read, without its offer, for a new parser.

        The old one passed over the body, as it does where another protocol is offered.
        """
        head = without_upgrade(
            self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
        )
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._upgrading = False
        return head

    def _refuse(self, refusal: HTTPException | Overloaded) -> None:
        """Answer the present request with ``refusal``, and read no other."""
        self._over = True
        self._forget_deadline()
        if self._in_body:
            self._break_off(refusal)
            return
        if not self._in_head:
            super().on_message_begin()
        self.url = b"/"  # a malformed request's path is not used
        self.scope["state"][PROTOCOL_ERROR] = refusal
        self._begin()
        self.cycle.keep_alive = False
        super().on_message_complete()

    def _break_off(self, refusal: HTTPException | Overloaded) -> None:
        """Pass a malformed body's error to the app; close if the app has answered already."""
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.scope["state"][PROTOCOL_ERROR] = refusal
        self.cycle.keep_alive = False
        super().on_message_complete()

    def _set_deadline(self) -> None:
        """Give the rest of a head or of a body its time."""
        if self._in_head:
            self._end_in(self._limits.header_timeout_s, self._head_is_late)
        elif self._in_body:
            self._end_in(self._limits.body_timeout_s, self._body_is_late)

    def _end_in(self, seconds: float, late: Callable[[], None]) -> None:
        self._deadline = self.loop.call_later(seconds, late)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _head_is_late(self) -> None:
        """Refuse a request whose headers drip; close where none has begun."""
        self._deadline = None
        if self._in_head:
            seconds = self._limits.header_timeout_s
            self._refuse(HTTPException(408, f"the headers took longer than {seconds:g} s"))
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        """Refuse a request whose body drips."""
        self._deadline = None
        seconds = self._limits.body_timeout_s
        self._refuse(HTTPException(408, f"the body took longer than {seconds:g} s"))
