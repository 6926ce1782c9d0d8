"""HTTP/1.1 as a client speaks it: requests as bytes, and answers from bytes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httptools

from spd_deploy.domain.errors import BadSetting

_STAGE = re.compile(r"([\w-]+);dur=([\d.]+)")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server listens.

    Attributes:
        prefix: path under which a proxy offers it; empty or with a leading slash.
    """

    host: str
    port: int
    tls: bool = False
    prefix: str = ""

    def __str__(self) -> str:
        """The URL, with the port written out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


def address_of(url: str) -> Address:
    """The address in a URL.

    Raises:
        BadSetting: it is no URL of a server.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as err:
        raise _no_url(url) from err
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        raise _no_url(url)
    return Address(
        host=host,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "https",
        prefix=quote(parts.path.rstrip("/"), safe="/%"),
    )


def get(address: Address, path: str, *, api_key: str | None = None) -> bytes:
    """A request without a body."""
    return f"GET {_head(address, path, api_key)}\r\n".encode("ascii")


def post(
    address: Address, path: str, value: Mapping[str, Any], *, api_key: str | None = None
) -> bytes:
    """A request with a JSON body."""
    body = json.dumps(value, ensure_ascii=False).encode()
    head = (
        f"POST {_head(address, path, api_key)}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


@dataclass(slots=True)
class HttpAnswer:
    """One answer: its status, its headers by lower-case name, its body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("connection", "").lower() == "close"

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds of each stage that the server names in ``Server-Timing``."""
        found = _STAGE.findall(self.headers.get("server-timing", ""))
        return {name: float(ms) / 1000 for name, ms in found}


class AnswerReader:
    """Puts one answer after another together from the bytes of a connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._done = HttpAnswer(), False

    def feed(self, data: bytes) -> HttpAnswer | None:
        """The answer, where these bytes complete it.

        Raises:
            ConnectionError: the bytes are no HTTP.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as err:
            raise ConnectionError(f"no HTTP: {err}") from err
        if not self._done:
            return None
        answer, self._answer, self._done = self._answer, HttpAnswer(), False
        answer.status = self._parser.get_status_code()
        return answer

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; the parser calls it."""
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body; the parser calls it."""
        self._answer.body += data

    def on_message_complete(self) -> None:
        """Note the end of an answer; the parser calls it."""
        self._done = True


def _head(address: Address, path: str, api_key: str | None) -> str:
    """The head of a request after its method, without the headers of its body."""
    key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
    return f"{address.prefix}{path} HTTP/1.1\r\nHost: {_host(address)}\r\n{key}"


def _host(address: Address) -> str:
    """The value of the header ``Host``."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _no_url(url: str) -> BadSetting:
    """The error for a URL that names no server."""
    return BadSetting(
        "this is no URL of a server", got=url, fix="give one such as http://127.0.0.1:8000"
    )
