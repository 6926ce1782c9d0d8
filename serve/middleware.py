"""ASGI middleware of every request: its id, its handler, its metrics, a response to any failure.

It is pure ASGI, because Starlette's ``BaseHTTPMiddleware`` hides a client's disconnect from the
handler.
"""

import asyncio
import re
import secrets

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access import Audience
from serve.allowed_hosts import HOSTS, TRUSTED, AllowedHosts
from serve.context import ServerContext
from serve.deadline import ARRIVED
from serve.forwarding import ProxySettings
from serve.headers import header_of
from serve.http_errors import (
    CLIENT_CLOSED_REQUEST,
    ERROR_FORMAT,
    PROTOCOL_ERROR,
    format_of,
    kind_of,
    response_for,
)
from serve.request_record import OTHER, RequestRecord, recording
from serve.route_table import RouteTable
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import NotReady

REQUEST_ID = "X-Request-Id"
_REQUEST_ID_HEADER = REQUEST_ID.lower().encode()
_BODY_HEADERS = (b"content-length", b"transfer-encoding")
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_from(given: str | None) -> str:
    """The client's id if it has 1 to 64 letters, digits, ``.``, ``_`` or ``-``; else a new one."""
    return given if given and _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)


class RequestMiddleware:
    """Gives each request an id, counts it, and turns every exception into a response."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        server: ServerContext,
        forwarding: ProxySettings,
        hosts: AllowedHosts,
        routes: RouteTable,
    ) -> None:
        """``routes`` answers all of HTTP; ``app`` is for what else there is in ASGI."""
        self._app, self._server, self._state = app, server, server.state
        self._forwarding, self._hosts, self._routes = forwarding, hosts, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for one request; the ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(
            request_id_from(header_of(scope, _REQUEST_ID_HEADER)), scope["method"]
        )
        own = scope.setdefault("state", {})
        own["request_id"], own[ARRIVED], own[HOSTS] = record.request_id, record.since, self._hosts
        answer = _ResponseSender(send, record.request_id)
        received = _Receiver(scope, receive, self._state)
        try:
            with recording(record):
                await self._answer(scope, received, answer, record)
        finally:
            received.close()
            if self._server.observers:
                record.traceparent = header_of(scope, b"traceparent")
                record.tracestate = header_of(scope, b"tracestate")
            self._server.answered(record, answer.status or CLIENT_CLOSED_REQUEST)

    async def _answer(
        self, scope: Scope, receive: Receive, answer: "_ResponseSender", record: RequestRecord
    ) -> None:
        """Run the handler, and send an error response for what it raises."""
        try:
            _raise_protocol_error(scope)
            trusted = scope["state"][TRUSTED] = self._forwarding.trusts_client(scope)
            self._forwarding.apply(scope)
            route, scope["path_params"] = self._routes.find(_path_in_app(scope), scope["method"])
            record.route, record.protocol = route.path, route.protocol
            record.probe = route.audience is not Audience.CLIENTS
            scope["state"][ERROR_FORMAT] = route.errors
            self._hosts.refuse_unknown(scope, trusted=trusted)
            record.client = self._server.access.client_of(scope, route.audience)
            if route.queues:
                self._server.refuse_full(scope["path_params"].get("name"))
            response = await route.handler(Request(scope, receive))
            await response(scope, receive, answer)
        except asyncio.CancelledError:
            # uvicorn cancels requests that outlast the drain timeout.
            if self._state.phase is not Phase.DRAINING or answer.status:
                raise
            late = NotReady("the server is shutting down", fix="send the request again")
            record.code = kind_of(late).code
            await response_for(late, record.request_id, format_of(scope))(scope, receive, answer)
        except Exception as err:
            if PROTOCOL_ERROR in scope["state"]:  # the path is not the client's
                record.route, record.protocol = OTHER, ""
            if answer.status:
                raise
            record.code = kind_of(err).code
            await response_for(err, record.request_id, format_of(scope))(scope, receive, answer)


def _path_in_app(scope: Scope) -> str:
    """The path without the prefix under which a proxy offers the server."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class _ResponseSender:
    """Passes a response on with the header ``X-Request-Id``, and keeps its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (_REQUEST_ID_HEADER, self._request_id.encode("ascii"))
            message["headers"] = [*message.get("headers", ()), own]
        await self._send(message)


class _Receiver:
    """Receives a request, which is in flight once it is whole.

    Raises what the connection finds wrong with the body. A request whose body has not arrived does
    not keep a server from ending.
    """

    def __init__(self, scope: Scope, receive: Receive, state: ServerState) -> None:
        self._scope, self._receive, self._state = scope, receive, state
        self._counted = False
        if not any(name in _BODY_HEADERS for name, _ in scope["headers"]):
            self._count()

    async def __call__(self) -> Message:
        """Receive one ASGI message."""
        message = await self._receive()
        _raise_protocol_error(self._scope)
        if not message.get("more_body"):
            self._count()
        return message

    def close(self) -> None:
        """Note that the request is answered."""
        self._state.in_flight -= self._counted
        self._counted = False

    def _count(self) -> None:
        self._state.in_flight += not self._counted
        self._counted = True


def _raise_protocol_error(scope: Scope) -> None:
    """Raise the error that the connection has put into the scope, if any (``connection.py``)."""
    if PROTOCOL_ERROR in scope["state"]:
        raise scope["state"][PROTOCOL_ERROR]
