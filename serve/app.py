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

from serve.access import Access
from serve.allowed_hosts import AllowedHosts
from serve.context import ServerContext
from serve.cors import with_cors
from serve.discovery import Discovery
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
from serve.repository import Repository
from serve.request_record import Observer
from serve.route_table import RouteTable
from serve.settings import ServeSettings
from serve.shadow import Shadows, ShadowSpec
from serve.state import Phase, ServerState
from serve.tls import ServerTls
from serve.watch import Watcher
from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

if TYPE_CHECKING:
    from serve.protocols.oip.oip_grpc import GrpcServer

_log = logging.getLogger(__name__)
_WATCH_EVERY_S = 1.0
_START_POLL_S = 0.05
_DESCRIPTION = "Classifies texts with a sparse encoder."


def create_app(
    models: Callable[[], ServedModel] | Sequence[ModelSource],
    settings: ServeSettings,
    *,
    repository: Repository | None = None,
    shadows: Sequence[ShadowSpec] = (),
    watch: bool = False,
    state: ServerState | None = None,
    forwarding: ProxySettings | None = None,
    hosts: AllowedHosts | None = None,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    metrics: Metrics | None = None,
    grpc_address: tuple[str, int] | None = None,
    tls: ServerTls | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        models: where each model comes from, the first one for requests that name none; or a
            function that opens and self-tests the only one, in a thread, when the app starts.
        settings: the server's limits.
        shadows: which models run a share of the requests of which others.
        repository: where the models come from, if others may be added to it.
        watch: whether a model whose files change is replaced, and models of the repository that
            come and go are served and unloaded.
        state: where the app is in its state, for a process that wants to watch and drain it;
            without one an error at start is logged.
        forwarding: the proxies whose X-Forwarded headers are trusted; none by default.
        hosts: the host names under which the server answers; all by default.
        access: who may ask what; by default everyone everything.
        cors_origins: the origins whose pages may call the server from a browser; ``*`` is all.
        observers: the request log and the tracing, if any; closed when the app ends.
        metrics: where the app counts; by default in metrics of its own.
        grpc_address: host and port of a gRPC server beside it; none by default.
        tls: the certificate of the gRPC server, without which it speaks plain text; its files
            are watched for changes.

    Raises:
        Unavailable: gRPC is wanted and not installed.
        BadSetting: a shadow names a model that is not served.
    """
    if state is None:
        state = ServerState()
        state.on_failure = _log_failure
    metrics, reloads = metrics or Metrics(), ReloadMetrics()
    sources = [FunctionSource(models)] if callable(models) else models
    state.models = tuple(HostedModel(source) for source in sources)
    shadowing = Shadows(shadows, state.models)
    metrics.watch_requests(lambda: state.in_flight)
    metrics.show_also(reloads.collect)
    for model in state.models:
        if model.name is not None:
            reloads.watch(model.name)
    if shadows:
        metrics.show_also(shadowing.metrics.collect)
    control = ModelControl(state, settings, metrics, reloads, shadowing)
    discovery = None if repository is None else Discovery(state, control, reloads, repository)
    watcher = Watcher(state, control, discovery) if watch else None
    server = ServerContext(
        state=state,
        settings=settings,
        metrics=metrics,
        control=control,
        discovery=discovery,
        access=access or Access(),
        observers=observers,
    )
    grpc_server = None if grpc_address is None else _grpc_server(server, *grpc_address, tls)
    protocols = [protocol(server) for protocol in PROTOCOLS]
    app = DocumentedApp(
        protocols=protocols,
        input_spec=lambda: _input_spec_of(state, settings),
        access=server.access,
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        lifespan=lambda app: _lifespan(server, grpc_server, shadowing, watcher, tls),
    )
    # Outside of FastAPI's own middleware, which no request needs to pass.
    answering = RequestMiddleware(
        app.build_middleware_stack(),
        server=server,
        forwarding=forwarding or ProxySettings(),
        hosts=hosts or AllowedHosts(),
        routes=RouteTable(protocols),
    )
    app.middleware_stack = with_cors(answering, cors_origins)
    app.state.server = state  # for what runs the app inside of another server
    return app


def _log_failure(error: SpdError) -> None:
    """Log why a model did not open, where no process ends with it."""
    _log.error("the model did not open: %s", error)


def _input_spec_of(state: ServerState, settings: ServeSettings) -> InputSpec:
    """The input of the open models; before one is open, that of any model."""
    opened = [model.opened for model in state.models]
    specs = [input_spec_of(one.served, settings) for one in opened if one is not None]
    if not specs:
        return InputSpec(takes="either", max_inputs=settings.max_inputs)
    return spec_of_all(specs)


def _grpc_server(
    server: ServerContext, host: str, port: int, tls: ServerTls | None
) -> "GrpcServer":
    """A gRPC server.

    Raises:
        Unavailable: the packages of the extra are not installed.
    """
    try:
        from serve.protocols.oip.oip_grpc import GrpcServer
    except ImportError as err:
        raise Unavailable(
            "gRPC is not installed", got=err, fix="pip install 'spd-deploy[grpc]'"
        ) from err
    return GrpcServer(server, host, port, tls)


@contextlib.asynccontextmanager
async def _lifespan(
    server: ServerContext,
    grpc_server: "GrpcServer | None",
    shadows: Shadows,
    watcher: Watcher | None,
    tls: ServerTls | None,
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
    work = [_watch(server, tls), _reload_when_asked(server, tls), shadows.run()]
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
        for observer in server.observers:
            await asyncio.to_thread(observer.close)


async def _watch(server: ServerContext, tls: ServerTls | None) -> None:
    """Once a second, fail the requests of a hanging batch, and read files that changed."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, server.settings.stall_timeout_s))
        server.access.refresh()
        if tls is not None:
            tls.refresh()
        server.control.give_up_stalled()


async def _reload_when_asked(server: ServerContext, tls: ServerTls | None) -> None:
    """Whenever a signal asks for it, read keys and certificate again, and replace what changed."""
    state, asked = server.state, asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        loop.call_soon_threadsafe(asked.set)

    state.ask_for_reload = ask
    while True:
        await asked.wait()
        asked.clear()
        server.access.reload()
        if tls is not None:
            tls.reload()
        while state.phase is Phase.STARTING:
            await asyncio.sleep(_START_POLL_S)
        if server.discovery is not None:
            await server.discovery.look(certain=True)
        for model in (*state.models, *state.found):
            await server.control.reload(model)
