"""Who may ask what: API keys, what needs none, and a port of its own for probes and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.exceptions import HTTPException

from serve.api_keys import KeyFile
from serve.headers import header_of
from spd_deploy.domain.errors import Unauthenticated

_SCHEME = "bearer "


class Audience(StrEnum):
    """For whom an endpoint is."""

    CLIENTS = "clients"
    PROBES = "probes"
    METRICS = "metrics"


class AnonymousAccess(StrEnum):
    """The paths that need no API key; each value includes those above it."""

    NONE = "none"
    PROBES = "probes"
    METRICS = "metrics"


_OPEN: Mapping[AnonymousAccess, tuple[Audience, ...]] = {
    AnonymousAccess.NONE: (),
    AnonymousAccess.PROBES: (Audience.PROBES,),
    AnonymousAccess.METRICS: (Audience.PROBES, Audience.METRICS),
}
# What the two ports have, where there are two.
_AT_MANAGEMENT = (Audience.PROBES, Audience.METRICS)
_BESIDE_MANAGEMENT = (Audience.PROBES, Audience.CLIENTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """The rules of one server.

    Attributes:
        keys: the known keys; without them everyone may ask everything.
        anonymous: what needs no key.
        management_port: a port that has probes and metrics alone, and asks for no key. Metrics are
            then nowhere else.
    """

    keys: KeyFile | None = None
    anonymous: AnonymousAccess = AnonymousAccess.PROBES
    management_port: int | None = None

    def needs_key(self, audience: Audience) -> bool:
        """Whether an endpoint for this audience asks for a key, on the main port."""
        return self.keys is not None and audience not in _OPEN[self.anonymous]

    def client_of(self, scope: Mapping[str, Any], audience: Audience) -> str:
        """The name of the client that sends a request; empty for one without a key.

        Raises:
            HTTPException: 404; the port has no such path.
            Unauthenticated: a key is needed, and there is none, or not a known one.
        """
        if self.management_port is not None:
            at_management = (scope.get("server") or ("", None))[1] == self.management_port
            if audience not in (_AT_MANAGEMENT if at_management else _BESIDE_MANAGEMENT):
                raise HTTPException(404, "this port does not have the path; use the other one")
            if at_management:
                return ""
        if not self.needs_key(audience):
            return ""
        return self.owner_of(header_of(scope, b"authorization"), header_of(scope, b"x-api-key"))

    def owner_of(self, authorization: str, api_key: str) -> str:
        """The name of the client with the key in these two headers; empty without keys.

        Raises:
            Unauthenticated: there is no key, or not a known one.
        """
        if self.keys is None:
            return ""
        bearer = authorization[: len(_SCHEME)].lower() == _SCHEME
        given = authorization[len(_SCHEME) :].strip() if bearer else api_key
        if not given:
            raise Unauthenticated(
                "an API key is needed", fix="send it as Authorization: Bearer KEY, or as x-api-key"
            )
        client = self.keys.keys.client_of(given)
        if client is None:
            raise Unauthenticated(
                "the API key is not known", fix="check it, or ask the operator for one"
            )
        return client

    def refresh(self) -> None:
        """Read the keys again if their file changed."""
        if self.keys is not None:
            self.keys.refresh()

    def reload(self) -> None:
        """Read the keys again."""
        if self.keys is not None:
            self.keys.reload()
