"""ASGI middleware of every request: its id, its metrics, and a response to any failure.

It is pure ASGI, because Starlette's ``BaseHTTPMiddleware`` hides a client's disconnect from the
handler.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.forwarding import ProxySettings
from serve.http_errors import CLIENT_CLOSED_REQUEST, PROTOCOL_ERROR, response_for
from serve.metrics import OTHER, Metrics
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import NotReady

REQUEST_ID = "X-Request-Id"
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
        state: ServerState,
        metrics: Metrics,
        forwarding: ProxySettings,
        routes: Collection[str],
    ) -> None:
        """``routes`` are the paths that metrics name; other paths count as ``other``."""
        self._app, self._state, self._metrics = app, state, metrics
        self._forwarding = forwarding
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for one request; the ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope).get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _ResponseSender(send, request_id)
        start = time.perf_counter()
        self._state.in_flight += 1
        try:
            await self._answer(scope, _receive_unless_malformed(scope, receive), answer, request_id)
        finally:
            self._state.in_flight -= 1
            self._metrics.request_answered(
                self._route(scope),
                answer.status or CLIENT_CLOSED_REQUEST,
                time.perf_counter() - start,
            )

    async def _answer(
        self, scope: Scope, receive: Receive, answer: "_ResponseSender", request_id: str
    ) -> None:
        """Run the app, and send an error response for what it raises."""
        try:
            _raise_protocol_error(scope)
            self._forwarding.apply(scope)
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # uvicorn cancels requests that outlast the drain timeout.
            if self._state.phase is not Phase.DRAINING or answer.status:
                raise
            late = NotReady("the server is shutting down", fix="send the request again")
            await response_for(late, request_id)(scope, receive, answer)
        except Exception as err:
            if answer.status:
                raise
            await response_for(err, request_id)(scope, receive, answer)

    def _route(self, scope: Scope) -> str:
        """The value of the metric label ``route``."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path if path in self._routes and PROTOCOL_ERROR not in scope["state"] else OTHER


class _ResponseSender:
    """Passes a response on with the header ``X-Request-Id``, and keeps its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message).append(REQUEST_ID, self._request_id)
        await self._send(message)


def _receive_unless_malformed(scope: Scope, receive: Receive) -> Receive:
    """A ``receive`` that raises once the connection finds the body malformed."""

    async def received() -> Message:
        message = await receive()
        _raise_protocol_error(scope)
        return message

    return received


def _raise_protocol_error(scope: Scope) -> None:
    """Raise the error that the connection has put into the scope, if any (``connection.py``)."""
    if PROTOCOL_ERROR in scope["state"]:
        raise scope["state"][PROTOCOL_ERROR]
