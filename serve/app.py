"""Assembles the server: ``create_app`` makes an ASGI app from a model and settings.

    app = create_app(lambda: open_served(Path("artefact")), ServeSettings())

The app answers at once: ``/livez`` gives 200 while the model is opened in a thread, and ``/readyz``
gives 503 until the model is verified, self-tested and warm. If the model does not open,
:class:`serve.state.ServerState` holds the error, and the process exits with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI

from serve.access import Access
from serve.context import ServerContext
from serve.cors import with_cors
from serve.forwarding import ProxySettings
from serve.info import input_spec_of
from serve.metrics import Metrics
from serve.middleware import RequestMiddleware
from serve.model_control import ModelControl
from serve.open_model import ServedModel
from serve.openapi import DocumentedApp
from serve.protocols.input_spec import InputSpec
from serve.protocols.registry import PROTOCOLS
from serve.request_record import Observer
from serve.route_table import RouteTable
from serve.settings import ServeSettings
from serve.state import ServerState
from serve.tls import ServerTls
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
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    metrics: Metrics | None = None,
    grpc_address: tuple[str, int] | None = None,
    tls: ServerTls | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        open_model: opens and self-tests the model; called once, in a thread, when the app starts.
        settings: the server's limits.
        state: where the app is in its state, for a process that wants to watch and drain it.
        forwarding: the proxies whose X-Forwarded headers are trusted; none by default.
        access: who may ask what; by default everyone everything.
        cors_origins: the origins whose pages may call the server from a browser; ``*`` is all.
        observers: the request log and the tracing, if any; closed when the app ends.
        metrics: where the app counts; by default in metrics of its own.
        grpc_address: host and port of a gRPC server beside it; none by default.
        tls: the certificate of the gRPC server, without which it speaks plain text; its files
            are watched for changes.

    Raises:
        Unavailable: gRPC is wanted and not installed.
    """
    state, access = state or ServerState(), access or Access()
    metrics = metrics or Metrics()
    control = ModelControl(open_model, settings, state, metrics)
    server = ServerContext(
        state=state,
        settings=settings,
        metrics=metrics,
        control=control,
        access=access,
        observers=observers,
    )
    metrics.watch_requests(lambda: state.in_flight)
    grpc_server = None if grpc_address is None else _grpc_server(server, *grpc_address, tls)
    protocols = [protocol(server) for protocol in PROTOCOLS]
    app = DocumentedApp(
        protocols=protocols,
        input_spec=lambda: _input_spec_of(state, settings),
        access=access,
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        lifespan=lambda app: _lifespan(server, grpc_server, tls),
    )
    # Outside of FastAPI's own middleware, which no request needs to pass.
    answering = RequestMiddleware(
        app.build_middleware_stack(),
        server=server,
        forwarding=forwarding or ProxySettings(),
        routes=RouteTable(protocols),
    )
    app.middleware_stack = with_cors(answering, cors_origins)
    return app


def _input_spec_of(state: ServerState, settings: ServeSettings) -> InputSpec:
    """The input of the open model; before it is open, that of any model."""
    if state.opened is None:
        return InputSpec(takes="either", max_inputs=settings.max_inputs)
    return input_spec_of(state.opened.served, settings)


def _grpc_server(
    server: ServerContext, host: str, port: int, tls: ServerTls | None
) -> "GrpcServer":
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
    return GrpcServer(server, host, port, tls)


@contextlib.asynccontextmanager
async def _lifespan(
    server: ServerContext, grpc_server: "GrpcServer | None", tls: ServerTls | None
) -> AsyncIterator[None]:
    """Open the model while the app runs already; close it at shutdown."""
    state, control = server.state, server.control
    if grpc_server is not None:
        try:
            state.grpc_address = await grpc_server.start()
        except Unavailable as err:
            state.fail(err)
            yield
            return
    opening = asyncio.create_task(control.start())
    watching = asyncio.create_task(_watch(server, tls))
    try:
        yield
    finally:
        watching.cancel()
        await opening
        if grpc_server is not None:
            await grpc_server.stop()
        await control.close()
        for observer in server.observers:
            await asyncio.to_thread(observer.close)


async def _watch(server: ServerContext, tls: ServerTls | None) -> None:
    """Once a second, fail the requests of a hanging batch, and read files that changed."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, server.settings.stall_timeout_s))
        server.access.refresh()
        if tls is not None:
            tls.refresh()
        if server.state.opened is not None:
            server.state.opened.engine.give_up_stalled()
