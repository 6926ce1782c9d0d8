"""Assembles the server: ``create_app`` makes an ASGI app from models and settings.

    app = create_app(lambda: open_served(Path("artefact")), ServeSettings())

The app answers at once: ``/livez`` gives 200 while the models are opened in a thread, and
``/readyz`` gives 503 until all are verified, self-tested and warm. If one does not open,
:class:`serve.state.ServerState` holds the error, and the process exits with it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI

from serve.context import ServerContext
from serve.forwarding import ProxySettings
from serve.hosted_model import HostedModel
from serve.info import input_spec_of
from serve.metrics import Metrics
from serve.middleware import RequestMiddleware
from serve.model_control import ModelControl
from serve.model_source import FunctionSource, ModelSource
from serve.open_model import ServedModel
from serve.openapi import DocumentedApp
from serve.protocols.input_spec import InputSpec, spec_of_all
from serve.protocols.registry import PROTOCOLS
from serve.reload_metrics import ReloadMetrics
from serve.route_table import RouteTable
from serve.settings import ServeSettings
from serve.shadow import Shadows, ShadowSpec
from serve.state import Phase, ServerState
from serve.watch import Watcher
from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

if TYPE_CHECKING:
    from serve.protocols.oip_grpc import GrpcServer

_log = logging.getLogger(__name__)
_WATCH_EVERY_S = 1.0
_START_POLL_S = 0.05
_DESCRIPTION = "Classifies texts with a sparse encoder."


def create_app(
    models: Callable[[], ServedModel] | Sequence[ModelSource],
    settings: ServeSettings,
    *,
    shadows: Sequence[ShadowSpec] = (),
    watch: bool = False,
    state: ServerState | None = None,
    forwarding: ProxySettings | None = None,
    grpc_address: tuple[str, int] | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        models: where each model comes from, the first one for requests that name none; or a
            function that opens and self-tests the only one, in a thread, when the app starts.
        settings: the server's limits.
        shadows: which models run a share of the requests of which others.
        watch: whether a model whose files change is replaced.
        state: where the app is in its state, for a process that wants to watch and drain it;
            without one an error at start is logged.
        forwarding: the proxies whose X-Forwarded headers are trusted; none by default.
        grpc_address: host and port of a gRPC server beside it; none by default.

    Raises:
        Unavailable: gRPC is wanted and not installed.
        BadSetting: a shadow names a model that is not served.
    """
    if state is None:
        state = ServerState()
        state.on_failure = _log_failure
    metrics, reloads = Metrics(), ReloadMetrics()
    state.models = _models_of([FunctionSource(models)] if callable(models) else models, metrics)
    shadowing = Shadows(shadows, state.models)
    metrics.show_also(reloads.collect)
    for model in state.models:
        if model.name is not None:
            reloads.watch(model.name)
    if shadows:
        metrics.show_also(shadowing.metrics.collect)
    control = ModelControl(state, settings, reloads, shadowing)
    watcher = Watcher(state, control) if watch else None
    server = ServerContext(state=state, settings=settings, metrics=metrics, control=control)
    grpc_server = None if grpc_address is None else _grpc_server(server, *grpc_address)
    protocols = [protocol(server) for protocol in PROTOCOLS]
    app = DocumentedApp(
        protocols=protocols,
        input_spec=lambda: _input_spec_of(state, settings),
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        lifespan=lambda app: _lifespan(server, grpc_server, shadowing, watcher),
    )
    # Outside of FastAPI's own middleware, which no request needs to pass.
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(),
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


def _log_failure(error: SpdError) -> None:
    """Log why a model did not open, where no process ends with it."""
    _log.error("the model did not open: %s", error)


def _models_of(sources: Sequence[ModelSource], metrics: Metrics) -> tuple[HostedModel, ...]:
    """The models; one counts as the server, and several have a label each in its metrics."""
    if len(sources) == 1:
        return (HostedModel(sources[0], metrics),)
    models = tuple(HostedModel(source, Metrics()) for source in sources)
    metrics.show_models({model.name or "": model.metrics for model in models})
    return models


def _input_spec_of(state: ServerState, settings: ServeSettings) -> InputSpec:
    """The input of the open models; before one is open, that of any model."""
    opened = [model.opened for model in state.models]
    specs = [input_spec_of(one.served, settings) for one in opened if one is not None]
    if not specs:
        return InputSpec(takes="either", max_inputs=settings.max_inputs)
    return spec_of_all(specs)


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
    server: ServerContext,
    grpc_server: "GrpcServer | None",
    shadows: Shadows,
    watcher: Watcher | None,
) -> AsyncIterator[None]:
    """Open the models while the app runs already; close them at shutdown."""
    state, control = server.state, server.control
    if grpc_server is not None:
        try:
            state.grpc_address = await grpc_server.start()
        except Unavailable as err:
            state.fail(err)
            yield
            return
    opening = asyncio.create_task(control.start())
    work = [_watch(control, server.settings), _reload_when_asked(server), shadows.run()]
    tasks = [asyncio.create_task(one) for one in (*work, *([watcher.run()] if watcher else []))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await opening
        if grpc_server is not None:
            await grpc_server.stop()
        await control.close()


async def _watch(control: ModelControl, settings: ServeSettings) -> None:
    """Watch for a hanging batch once a second, and fail its requests."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, settings.stall_timeout_s))
        control.give_up_stalled()


async def _reload_when_asked(server: ServerContext) -> None:
    """Replace every model that has changed whenever a signal asks for it, one after the other."""
    state, asked = server.state, asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        loop.call_soon_threadsafe(asked.set)

    state.ask_for_reload = ask
    while True:
        await asked.wait()
        while state.phase is Phase.STARTING:
            await asyncio.sleep(_START_POLL_S)
        asked.clear()
        for model in state.models:
            await server.control.reload(model)
