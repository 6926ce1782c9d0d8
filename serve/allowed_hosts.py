"""The host names under which the server answers.

A page of another site can have its own name resolve to this machine's address (DNS rebinding); the
browser then lets it read the answers. It cannot choose the Host header, so unknown names are
refused. IP addresses are always allowed, since no name can be rebound to them; orchestrators probe
by them. A trusted proxy has checked the name itself.

By default a server that only its own machine reaches answers to ``localhost``, and any other to
every name, since it cannot know those of its services. The page at ``/docs`` never shows an unknown
name.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from serve.headers import header_of
from spd_deploy.domain.errors import BadSetting

ANY = "*"
HOSTS = "hosts"  # key of ``scope["state"]``: the AllowedHosts of the server
TRUSTED = "trusted"  # key of ``scope["state"]``: whether a trusted proxy sent the request
_NAME = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PORT = re.compile(r":\d*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedHosts:
    """Host names in lower case, without ports; ``*.example.com`` has those below, ``*`` all.

    Attributes:
        names: those that are answered.
        own: names that are the server's own, besides.
    """

    names: tuple[str, ...] = (ANY,)
    own: tuple[str, ...] = ("localhost", "*.localhost")

    def __post_init__(self) -> None:
        """Refuse what is no host name.

        Raises:
            BadSetting: a name has a port, a path or a character that no name has.
        """
        for name in self.names:
            if not (_NAME.fullmatch(name) or _is_address(name)):
                raise BadSetting(
                    "--allowed-hosts holds something that is not a host name",
                    got=name,
                    fix="write names like spd.example.com or *.example.com, with commas between",
                )

    def knows(self, host: str) -> bool:
        """Whether a Host header has an address, or a name that is listed other than by ``*``."""
        name = _PORT.sub("", host).strip("[]").rstrip(".").lower()
        listed = (one for one in (*self.names, *self.own) if one != ANY)
        return not name or _is_address(name) or any(_fits(name, one) for one in listed)

    def refuse_unknown(self, scope: Mapping[str, Any], *, trusted: bool) -> None:
        """Refuse a request to a name that is not allowed.

        Raises:
            HTTPException: 400; the name is not allowed and does not come from a trusted proxy.
        """
        if ANY in self.names or trusted:
            return
        if not self.knows(header_of(scope, b"host")):
            raise HTTPException(
                400, "this server does not answer to this Host; list it in --allowed-hosts"
            )


def allowed_hosts_from(given: Sequence[str], *, host: str, is_loopback: bool) -> AllowedHosts:
    """The hosts of a server that is given these names; none stands for the default.

    Args:
        given: names, ``*.`` with a name, or ``*``.
        host: what the server binds to.
        is_loopback: whether only this machine reaches that.

    Raises:
        BadSetting: one is not a host name.
    """
    names = tuple(name.lower() for name in given)
    own = ("localhost", "*.localhost", *(() if _is_address(host) else (host.lower(),)))
    return AllowedHosts(names=names or (() if is_loopback else (ANY,)), own=own)


def _fits(name: str, pattern: str) -> bool:
    """Whether a name is the pattern, or below its ``*.``."""
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
