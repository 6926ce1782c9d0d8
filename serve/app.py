"""Assembles the server: ``create_app`` makes an ASGI app from a model and settings.

    app = create_app(lambda: open_served(Path("artefact")), ServeSettings())

The app answers at once: ``/livez`` gives 200 while the model is opened in a thread, and ``/readyz``
gives 503 until the model is verified, self-tested and warm. If the model does not open,
:class:`serve.state.ServerState` holds the error, and the process exits with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from serve.allowed_hosts import AllowedHosts
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
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

if TYPE_CHECKING:
    from serve.protocols.oip_grpc import GrpcServer

_WATCH_EVERY_S = 1.0
_DESCRIPTION = "Classifies texts with a sparse encoder."


def create_app(
    open_model: Callable[[], ServedModel],
    settings: ServeSettings,
    *,
    state: ServerState | None = None,
    forwarding: ProxySettings | None = None,
    hosts: AllowedHosts | None = None,
    grpc_address: tuple[str, int] | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        open_model: opens and self-tests the model; called once, in a thread, when the app starts.
        settings: the server's limits.
        state: where the app is in its state, for a process that wants to watch and drain it.
        forwarding: the proxies whose X-Forwarded headers are trusted; none by default.
        hosts: the host names under which the server answers; all by default.
        grpc_address: host and port of a gRPC server beside it; none by default.

    Raises:
        Unavailable: gRPC is wanted and not installed.
    """
    state = state or ServerState()
    metrics = Metrics()
    control = ModelControl(open_model, settings, state, metrics)
    server = ServerContext(state=state, settings=settings, metrics=metrics, control=control)
    grpc_server = None if grpc_address is None else _grpc_server(server, *grpc_address)
    protocols = [protocol(server) for protocol in PROTOCOLS]
    app = DocumentedApp(
        protocols=protocols,
        input_spec=lambda: _input_spec_of(state, settings),
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        lifespan=lambda app: _lifespan(control, settings, state, grpc_server),
    )
    # Outside of FastAPI's own middleware, which no request needs to pass.
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(),
        state=state,
        metrics=metrics,
        forwarding=forwarding or ProxySettings(),
        hosts=hosts or AllowedHosts(),
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


def _grpc_server(server: ServerContext, host: str, port: int) -> "GrpcServer":
    """A gRPC server.

    Raises:
        Unavailable: the packages of the extra are not installed.
    """
    try:
        from serve.protocols.oip_grpc import GrpcServer
    except ImportError as err:
        raise Unavailable(
            "gRPC is not installed", got=err, fix="pip install 'spd-deploy[grpc]'"
        ) from err
    return GrpcServer(server, host, port)


@contextlib.asynccontextmanager
async def _lifespan(
    control: ModelControl,
    settings: ServeSettings,
    state: ServerState,
    grpc_server: "GrpcServer | None",
) -> AsyncIterator[None]:
    """Open the model while the app runs already; close it at shutdown."""
    if grpc_server is not None:
        try:
            state.grpc_address = await grpc_server.start()
        except Unavailable as err:
            state.fail(err)
            yield
            return
    opening = asyncio.create_task(control.start())
    watching = asyncio.create_task(_watch(state, settings))
    try:
        yield
    finally:
        watching.cancel()
        await opening
        if grpc_server is not None:
            await grpc_server.stop()
        await control.close()


async def _watch(state: ServerState, settings: ServeSettings) -> None:
    """Watch for a hanging batch once a second, and fail its requests."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, settings.stall_timeout_s))
        if state.opened is not None:
            state.opened.engine.give_up_stalled()
