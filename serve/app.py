"""Assembles the server: ``create_app`` makes an ASGI app from a model and settings.

    app = create_app(lambda: open_served(Path("artefact")), ServeSettings())

The app answers at once: ``/livez`` gives 200 while the model is opened in a thread, and ``/readyz``
gives 503 until the model is verified, self-tested and warm. If the model does not open,
:class:`serve.state.ServerState` holds the error, and the process exits with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI

from serve.context import ServerContext
from serve.forwarding import ProxySettings
from serve.info import input_spec_of
from serve.metrics import Metrics
from serve.middleware import RequestMiddleware
from serve.model_control import ModelControl
from serve.open_model import ServedModel
from serve.openapi import DocumentedApp
from serve.protocols.input_spec import InputSpec
from serve.protocols.registry import PROTOCOLS
from serve.route_table import RouteTable
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.versions import PACKAGE, version_of

_WATCH_EVERY_S = 1.0
_DESCRIPTION = "Classifies texts with a sparse encoder."


def create_app(
    open_model: Callable[[], ServedModel],
    settings: ServeSettings,
    *,
    state: ServerState | None = None,
    forwarding: ProxySettings | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        open_model: opens and self-tests the model; called once, in a thread, when the app starts.
        settings: the server's limits.
        state: where the app is in its state, for a process that wants to watch and drain it.
        forwarding: the proxies whose X-Forwarded headers are trusted; none by default.
    """
    state = state or ServerState()
    metrics = Metrics()
    control = ModelControl(open_model, settings, state, metrics)
    server = ServerContext(state=state, settings=settings, metrics=metrics, control=control)
    protocols = [protocol(server) for protocol in PROTOCOLS]
    app = DocumentedApp(
        protocols=protocols,
        input_spec=lambda: _input_spec_of(state, settings),
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        lifespan=lambda app: _lifespan(control, settings, state),
    )
    app.add_middleware(
        RequestMiddleware,
        state=state,
        metrics=metrics,
        forwarding=forwarding or ProxySettings(),
        routes=RouteTable(
            (endpoint, protocol.errors)
            for protocol in protocols
            for endpoint in protocol.endpoints()
        ),
    )
    return app


def _input_spec_of(state: ServerState, settings: ServeSettings) -> InputSpec:
    """The input of the open model; before it is open, that of any model."""
    if state.opened is None:
        return InputSpec(takes="either", max_inputs=settings.max_inputs)
    return input_spec_of(state.opened.served, settings)


@contextlib.asynccontextmanager
async def _lifespan(
    control: ModelControl, settings: ServeSettings, state: ServerState
) -> AsyncIterator[None]:
    """Open the model while the app runs already; close it at shutdown."""
    opening = asyncio.create_task(control.start())
    watching = asyncio.create_task(_watch(state, settings))
    try:
        yield
    finally:
        watching.cancel()
        await opening
        await control.close()


async def _watch(state: ServerState, settings: ServeSettings) -> None:
    """Watch for a hanging batch once a second, and fail its requests."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, settings.stall_timeout_s))
        if state.opened is not None:
            state.opened.engine.give_up_stalled()
