"""The checks of RFC 9112 on a request's head that uvicorn leaves out; pure functions."""

import re
from collections.abc import Iterable

from starlette.exceptions import HTTPException

MAX_HEAD_BYTES = 65_536
_HOST = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[\da-fA-F:.]+\])(:\d*)?", re.ASCII)
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})

Headers = Iterable[tuple[bytes, bytes]]


def refusal_of(version: str, headers: Headers) -> HTTPException | None:
    """The error of a request with this version and these headers; None where it is valid."""
    if version not in ("1.0", "1.1"):
        return HTTPException(505, "this HTTP version is not supported; use HTTP/1.1")
    checked: dict[bytes, list[bytes]] = {b"host": [], b"transfer-encoding": [], b"expect": []}
    length = 0
    for name, value in headers:  # once, since every request comes through here
        length += len(name) + len(value) + 4
        if name in checked:
            checked[name].append(value.strip().lower())
    if length > MAX_HEAD_BYTES:
        return head_too_long()
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


def head_too_long() -> HTTPException:
    """The error of headers, or of trailers, beyond the limit."""
    return HTTPException(431, f"the headers have more than {MAX_HEAD_BYTES} bytes; send fewer")


def size_of(headers: Headers) -> int:
    """Bytes of header lines."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
