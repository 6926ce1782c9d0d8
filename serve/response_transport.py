"""The transport of a connection's answers: one write an answer, and an end within a time.

uvicorn writes the head by itself, although ASGI tells servers to wait for the body. A write of its
own would cost a system call, and would wake the client before there is an answer to read.

A socket that is closed while the client still sends is reset, and the client may lose the answer
that was on its way. Such a connection therefore lingers: its sending side is closed, and what comes
is dropped until the client closes too, or for two seconds. A client that does not read its answer
is disconnected when the write timeout is over.
"""

import asyncio
from asyncio import Transport
from collections.abc import Callable
from typing import Any

_INTERIM = b"HTTP/1.1 1"
_LINGER_S = 2.0


class ResponseTransport(Transport):
    """A transport that keeps the head of a response until its body is written."""

    def __init__(
        self, transport: Transport, *, write_timeout_s: float, still_sends: Callable[[], bool]
    ) -> None:
        """``still_sends`` tells whether the client may be in the middle of a request."""
        self._transport, self._head = transport, b""
        self._write_timeout_s, self._still_sends = write_timeout_s, still_sends
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.TimerHandle | None = None
        self._closing = False

    def write(self, data: Any) -> None:
        """Send the data; keep it instead if it is a head, but for an interim ``100 Continue``."""
        if not self._head and data.startswith(b"HTTP/1.1 ") and not data.startswith(_INTERIM):
            self._head = data
            return
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def flush(self) -> None:
        """Send the head that is kept, if any."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send the head that is kept, and close the connection; linger while the client sends."""
        if self._closing:
            return
        self.flush()
        self._closing = True
        if self._still_sends() and self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset the connection, which nothing told of yet
                self._transport.abort()
                return
            self._end_in(_LINGER_S)
        else:
            self._transport.close()
            self._end_in(self._write_timeout_s)

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closed or is being closed."""
        return self._closing or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A fact of the connection, such as its ``socket``."""
        return self._transport.get_extra_info(name, default)

    def writing_stopped(self) -> None:
        """Give the client until the write timeout to read what it was sent."""
        if not self._closing:
            self._end_in(self._write_timeout_s)

    def writing_resumed(self) -> None:
        """The client reads again."""
        if not self._closing:
            self.forget()

    def forget(self) -> None:
        """Stop waiting for the end."""
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _end_in(self, seconds: float) -> None:
        """Abort the connection after so many seconds."""
        self.forget()
        self._end = self._loop.call_later(seconds, self._transport.abort)
