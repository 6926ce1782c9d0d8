"""One HTTP/1.1 connection: uvicorn's, with the checks of RFC 9112 that uvicorn leaves out.

The app answers malformed and unsupported HTTP itself. The connection starts the request with the
error in its scope (``http_errors.PROTOCOL_ERROR``), so that it gets the usual JSON body, an id and
its metrics. The connection is closed afterwards, since the start of a next request is not known.

An ``Upgrade`` to another protocol, such as the ``h2c`` of curl and of Java's client, is declined as
HTTP asks: the request is answered as if the header were missing.
"""

import re
import socket
from asyncio import BaseTransport, Transport
from collections.abc import Iterable
from typing import Any, cast

import httptools
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.http_errors import PROTOCOL_ERROR

MAX_HEAD_BYTES = 65_536
_HOST = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[\da-fA-F:.]+\])(:\d*)?", re.ASCII)
_INTERIM = b"HTTP/1.1 1"
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})

Headers = Iterable[tuple[bytes, bytes]]


class Connection(HttpToolsProtocol):
    """A connection that refuses malformed HTTP through the app."""

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
        super().connection_made(cast("Transport", transport))
        self._responses = self.transport = _ResponseTransport(self.transport)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes; bytes after a refused request are dropped."""
        self._unset_keepalive_if_required()
        while data and not self._over:
            data = self._parse(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self._over:
            self._refuse(_head_too_long())

    def on_message_begin(self) -> None:
        """Note that a request begins; the parser's callback."""
        if not self._over:
            self._in_head = True
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
        else:
            super().on_headers_complete()
            self._in_head, self._in_body = False, True

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; the parser's callback."""
        if not self._over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete; the parser's callback."""
        self._head_bytes = 0
        if not (self._over or self._upgrading):
            self._in_body = False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send a head that no body followed; uvicorn's callback."""
        self._responses.flush()
        super().on_response_complete()

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

    def _refuse(self, refusal: HTTPException) -> None:
        """Answer the present request with ``refusal``, and read no other."""
        self._over = True
        if self._in_body:
            self._break_off(refusal)
            return
        if not self._in_head:
            super().on_message_begin()
        self.url = b"/"  # a malformed request's path is not used
        self.scope["state"][PROTOCOL_ERROR] = refusal
        super().on_headers_complete()
        self.cycle.keep_alive = False
        super().on_message_complete()

    def _break_off(self, refusal: HTTPException) -> None:
        """Pass a malformed body's error to the app; close if the app has answered already."""
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.scope["state"][PROTOCOL_ERROR] = refusal
        self.cycle.keep_alive = False
        super().on_message_complete()


class _ResponseTransport(Transport):
    """A transport that keeps the head of a response until its body is written.

    uvicorn writes the head by itself, although ASGI tells servers to wait for the body. A write of
    its own would cost a system call, and would wake the client before there is an answer to read.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._head = transport, b""

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
        """Send the head that is kept, and close the connection."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or is being closed."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A fact of the connection, such as its ``socket``."""
        return self._transport.get_extra_info(name, default)


def refusal_of(version: str, headers: Headers) -> HTTPException | None:
    """The error of a request with this version and these headers; None where it is valid."""
    if version not in ("1.0", "1.1"):
        return HTTPException(505, "this HTTP version is not supported; use HTTP/1.1")
    length = 0
    checked: dict[bytes, list[bytes]] = {b"host": [], b"transfer-encoding": [], b"expect": []}
    for name, value in headers:  # once, since every request comes through here
        length += len(name) + len(value) + 4
        if name in checked:
            checked[name].append(value.strip().lower())
    if length > MAX_HEAD_BYTES:
        return _head_too_long()
    return (
        _refusal_of_host(version, checked[b"host"])
        or _refusal_of_coding(version, checked[b"transfer-encoding"])
        or _refusal_of_expectation(version, checked[b"expect"])
    )


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request without its ``Upgrade`` headers."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            value = b",".join(o for o in value.split(b",") if o.strip().lower() not in _UPGRADE)
        if name not in _UPGRADE:
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])


def _refusal_of_host(version: str, hosts: list[bytes]) -> HTTPException | None:
    """RFC 9112, 3.2: one host, and a host; HTTP/1.0 need not name it."""
    if not hosts:
        return HTTPException(400, "no Host header; send one") if version == "1.1" else None
    if len(hosts) > 1:
        return HTTPException(400, f"{len(hosts)} Host headers; send one")
    if not _HOST.fullmatch(hosts[0]):
        return HTTPException(400, "the Host header is not a host; send a name and a port")
    return None


def _refusal_of_coding(version: str, codings: list[bytes]) -> HTTPException | None:
    """RFC 9112, 6.1: a body in a coding that is not understood cannot be read."""
    if not codings:
        return None
    if version == "1.0":
        return HTTPException(400, "HTTP/1.0 has no Transfer-Encoding; send a Content-Length")
    if codings == [b"chunked"]:
        return None
    return HTTPException(501, "this Transfer-Encoding is not supported; use chunked")


def _refusal_of_expectation(version: str, expected: list[bytes]) -> HTTPException | None:
    """RFC 9110, 10.1.1: ``100-continue`` is the only one there is; HTTP/1.0 has none."""
    if version == "1.0" or all(one == b"100-continue" for one in expected):
        return None
    return HTTPException(417, "this Expect is not supported; use 100-continue or leave it out")


def _head_too_long() -> HTTPException:
    return HTTPException(431, f"the headers have more than {MAX_HEAD_BYTES} bytes; send fewer")
