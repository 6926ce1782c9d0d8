"""A replica of Ray Serve: a server of ours, or one for each model that requests name.

Ray awaits ``__serve_build_asgi_app__`` for the ASGI app before requests come, calls
``check_health`` again and again, and runs the lifespan's shutdown once the replica is drained.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http_errors import response_for
from serve.middleware import request_id_from
from serve.repository import refuse_bad_name
from serve.state import Phase, ServerState
from spd_deploy.api.app import create_app
from spd_deploy.domain.artefact import is_artefact
from spd_deploy.domain.errors import BadSetting, SpdError, UnknownModel

# In which requests in flight are answered, as by `spd serve` after SIGTERM.
DRAIN_S = 30.0
_POLL_S = 0.05


class RunningApp:
    """An app of ours that runs inside of another server.

    Attributes:
        app: the app.
        stopped: whether its models are closed, or about to be.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.stopped = False
        self._lifespan = contextlib.AsyncExitStack()
        self._loop = asyncio.get_running_loop()

    @property
    def state(self) -> ServerState:
        """The phase of the server, and its models."""
        found: ServerState = self.app.state.server
        return found

    @classmethod
    async def started(cls, options: Mapping[str, Any]) -> Self:
        """Open the models, and wait until they are verified and warm.

        Raises:
            SpdError: one does not open.
        """
        running = cls(create_app(**options))
        lifespan = running.app.router.lifespan_context(running.app)
        await running._lifespan.enter_async_context(lifespan)
        while running.state.phase is Phase.STARTING:
            await asyncio.sleep(_POLL_S)
        if running.state.error is not None:
            await running.stop()
            raise running.state.error
        return running

    async def stop(self) -> None:
        """Answer what is in flight, and close the models; a second call does nothing."""
        if self.stopped:
            return
        self.stopped = True
        self.state.drain()
        give_up_at = time.perf_counter() + DRAIN_S
        while self.state.in_flight and time.perf_counter() < give_up_at:
            await asyncio.sleep(_POLL_S)
        await self._lifespan.aclose()

    def __del__(self) -> None:
        """Ray Serve calls this for a model that it unloads, in a thread of its own."""
        if not self.stopped and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self.stop(), self._loop)


class Replica:
    """The server of one replica, made by Ray Serve.

    Args:
        options: parameters of ``create_app``; threads are the cores of the replica by default.
        models: a folder of artefacts of which each request names one; empty for none.
        models_per_replica: how many of those are open.
    """

    def __init__(self, options: Mapping[str, Any], *, models: str, models_per_replica: int) -> None:
        self._options = options if "threads" in options else {**options, "threads": _cores()}
        self._models, self._models_per_replica = models, models_per_replica
        self._running: dict[str, RunningApp] = {}

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """The app that Ray Serve runs, with its models open; the error of one is Ray's status.

        Raises:
            SpdError: one does not open.
        """
        if not self._models:
            running = await self.started()
            return with_lifespan(running.app, self._stop)
        from ray import serve

        open_model = serve.multiplexed(max_num_models_per_replica=self._models_per_replica)(
            self._opener()
        )

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            """Answer by the model that the request names, which is opened if need be."""
            name = serve.get_multiplexed_model_id()
            try:
                refuse_unknown(Path(self._models), name)
                running = await open_model(name)
            except SpdError as err:
                given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
                await response_for(err, request_id_from(given))(scope, receive, send)
                return
            await running.app(scope, receive, send)

        return with_lifespan(answer, self._stop)

    def check_health(self) -> None:
        """Ray Serve replaces the replica where ``/livez`` would answer 503.

        Raises:
            NotReady: the engine's thread has ended, or a batch hangs in the model.
        """
        self._running = {n: one for n, one in self._running.items() if not one.stopped}
        for running in self._running.values():
            running.state.refuse_dead()

    async def started(self) -> RunningApp:
        """The one server, with its models open.

        Raises:
            SpdError: one does not open.
        """
        self._running[""] = running = await RunningApp.started(self._options)
        return running

    async def _stop(self) -> None:
        for running in self._running.values():
            await running.stop()

    def _opener(self) -> Callable[[str], Awaitable[RunningApp]]:
        """Opens a model by its name, for Ray Serve, which keeps as many as it may."""

        async def open_model(name: str) -> RunningApp:
            """A server of this model alone."""
            folder = Path(self._models) / name
            running = await RunningApp.started({**self._options, "artefact": {name: folder}})
            self._running[name] = running
            return running

        return open_model


def refuse_unknown(models: Path, name: str) -> None:
    """Refuse a name that is no artefact in the folder.

    Raises:
        UnknownModel: none is named, or there is no such artefact.
    """
    try:
        refuse_bad_name(name)
    except BadSetting as err:
        raise UnknownModel(
            "the request names no model",
            got=err.got,
            fix="name one in the header serve_multiplexed_model_id",
        ) from err
    if not is_artefact(models / name):
        raise UnknownModel("no such model", got=name, fix="name a folder of the models")


def with_lifespan(answer: ASGIApp, stop: Callable[[], Awaitable[None]]) -> ASGIApp:
    """An ASGI app that has started before, and is stopped by the lifespan's shutdown."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        """The entry point of ASGI."""
        if scope["type"] != "lifespan":
            await answer(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await stop()
        await send({"type": "lifespan.shutdown.complete"})

    return asgi


def _cores() -> int:
    """The cores that Ray has given this replica, as the deployment or its configuration says."""
    import ray

    given = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    return max(1, int(given.get("CPU", 1)))
