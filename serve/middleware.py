"""What happens to every request, around the app: an id, a count, and an answer to any failure.

Pure ASGI, because the framework's convenient middleware hides from a handler that its client has
left.
"""

import asyncio
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.forwarding import Forwarding
from serve.http_errors import CLIENT_LEFT, REFUSED, response_for
from serve.metrics import OTHER, Metrics
from serve.request_ids import REQUEST_ID, current_request_id, request_id_from
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import NotReady


class Watched:
    """Wraps an app so that every request has an id, is counted, and gets an answer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        life: ServerState,
        metrics: Metrics,
        forwarding: Forwarding,
        routes: Collection[str],
    ) -> None:
        """``routes`` are the paths that are counted by name."""
        self._app, self._life, self._metrics = app, life, metrics
        self._forwarding = forwarding
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope).get(REQUEST_ID))
        scope.setdefault("state", {})["request_id"] = request_id
        current_request_id.set(request_id)
        answer = _Answer(send, request_id)
        start = time.perf_counter()
        self._life.in_flight += 1
        try:
            await self._answer(scope, _unless_refused(scope, receive), answer, request_id)
        finally:
            self._life.in_flight -= 1
            self._metrics.request_answered(
                self._route(scope),
                answer.status or CLIENT_LEFT,
                time.perf_counter() - start,
            )

    async def _answer(
        self, scope: Scope, receive: Receive, answer: "_Answer", request_id: str
    ) -> None:
        """Run the app; what it lets escape becomes an error's answer."""
        try:
            _raise_refusal(scope)
            self._forwarding.apply(scope)
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # The process cancels what the drain's time was too short for.
            if self._life.phase is not Phase.DRAINING or answer.status:
                raise
            late = NotReady("the server is shutting down", fix="send the request again")
            await response_for(late, request_id)(scope, receive, answer)
        except Exception as err:
            if answer.status:
                raise
            await response_for(err, request_id)(scope, receive, answer)

    def _route(self, scope: Scope) -> str:
        """What a request is counted under."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return path if path in self._routes and REFUSED not in scope["state"] else OTHER


class _Answer:
    """Sends an answer on, with the request's id, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        """Send one part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message).append(REQUEST_ID, self._request_id)
        await self._send(message)


def _unless_refused(scope: Scope, receive: Receive) -> Receive:
    """``receive``, which raises where the connection found that the body is no HTTP."""

    async def received() -> Message:
        message = await receive()
        _raise_refusal(scope)
        return message

    return received


def _raise_refusal(scope: Scope) -> None:
    """Raise what the connection found wrong with the request, if anything (``connection.py``)."""
    if REFUSED in scope["state"]:
        raise scope["state"][REFUSED]
