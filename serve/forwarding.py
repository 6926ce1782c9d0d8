"""X-Forwarded headers: the scheme, host and prefix under which clients see the server.

A proxy that ends TLS or strips a prefix from the path reports it in ``X-Forwarded-Proto``,
``X-Forwarded-Host`` and ``X-Forwarded-Prefix``. Any client can send these headers, so they are read
only from the addresses in ``--forwarded-allow-ips``. For a proxy that sends no prefix there is
``--root-path``. The values go into the ASGI scope, and from there into every link and example.
"""

import ipaddress
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from spd_deploy.domain.errors import BadSetting

_PREFIX = re.compile(r"(/[A-Za-z0-9._~%-]+)*")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_SCHEME = re.compile(r"https?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxySettings:
    """The proxies in front of the server.

    Attributes:
        root_path: the prefix under which clients see the server, such as ``/models/sst2``.
        trusted: networks of the proxies whose X-Forwarded headers are read.
    """

    root_path: str = ""
    trusted: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a malformed prefix.

        Raises:
            BadSetting: the prefix does not begin with a slash, ends with one, or is no path.
        """
        if not _PREFIX.fullmatch(self.root_path):
            raise BadSetting(
                "--root-path is not a path", got=self.root_path, fix="write it like /models/sst2"
            )

    def trusts(self, client: str) -> bool:
        """Whether X-Forwarded headers of a client with this address are read."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a Unix socket has none
            return False
        return any(address in network for network in self.trusted)

    def trusts_client(self, scope: Mapping[str, Any]) -> bool:
        """Whether a request comes from a trusted proxy."""
        client = scope.get("client")
        return bool(self.trusted and client and self.trusts(client[0]))

    def apply(self, scope: MutableMapping[str, Any]) -> None:
        """Put the scheme, host and prefix that the client sees into a request's ASGI scope.

        Raises:
            HTTPException: a trusted proxy sent a malformed scheme, host or prefix.
        """
        prefix = self.root_path
        if self.trusts_client(scope):
            headers = Headers(scope=scope)
            prefix = _prefix_in(headers) or prefix
            scope["scheme"] = _first(headers, "X-Forwarded-Proto", _SCHEME) or scope["scheme"]
            if host := _first(headers, "X-Forwarded-Host", _HOST):
                rest = [pair for pair in scope["headers"] if pair[0] != b"host"]
                scope["headers"] = [(b"host", host.encode()), *rest]
        if prefix:
            scope["root_path"] = prefix
            if not f"{scope['path']}/".startswith(f"{prefix}/"):  # the proxy took it off
                scope["path"] = prefix + scope["path"]
            elif scope["path"] == prefix:
                scope["path"] = f"{prefix}/"


def trusted_from(spelled: str) -> tuple[Network, ...]:
    """Parse addresses and networks with commas between; ``*`` is every address.

    Raises:
        BadSetting: a part is neither an address nor a network.
    """
    everybody = "0.0.0.0/0,::/0"
    names = spelled.replace("*", everybody).split(",") if spelled else []
    try:
        return tuple(ipaddress.ip_network(name.strip()) for name in names)
    except ValueError as err:
        raise BadSetting(
            "--forwarded-allow-ips holds something that is neither an address nor a network",
            got=err,
            fix="write addresses like 10.0.0.7 or networks like 10.0.0.0/8, with commas between",
        ) from err


def _prefix_in(headers: Headers) -> str:
    """The prefixes that the proxies stripped from the path, outermost first."""
    parts = ",".join(headers.getlist("X-Forwarded-Prefix")).split(",")
    prefix = "".join(part.strip().rstrip("/") for part in parts)
    return _checked(prefix, "X-Forwarded-Prefix", _PREFIX)


def _first(headers: Headers, name: str, form: re.Pattern[str]) -> str:
    """The outermost proxy's value of a header; empty where it is missing."""
    said = headers.get(name, "").partition(",")[0].strip()
    return _checked(said, name, form) if said else ""


def _checked(said: str, name: str, form: re.Pattern[str]) -> str:
    """The value, if it matches the pattern; else a 400."""
    if not form.fullmatch(said):
        raise HTTPException(400, f"the proxy's {name} is malformed; correct the proxy")
    return said
