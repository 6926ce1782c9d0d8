"""Puts the server together: ``create_app`` makes an ASGI app of a model and limits.

    app = create_app(lambda: open_served(Path("artefact")), Settings())

The app answers from its first moment: ``/livez`` says 200 while the model is opened in a thread,
``/readyz`` says 503 until it is verified, self-tested and warm. It never says ready for a model
that failed; :class:`serve.state.ServerState` then holds the error, with which the process around it
ends.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from serve.classifier import Classifier
from serve.forwarding import Forwarding
from serve.http_errors import ClientLeft, on_error
from serve.info import build_labels, form_of
from serve.metrics import Metrics
from serve.middleware import Watched
from serve.open_model import Served
from serve.openapi import Described
from serve.protocols.form import Form
from serve.routes import BODIES, Routes
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

_log = logging.getLogger(__name__)
_CLOSE_WITHIN_S = 5.0
_WATCH_EVERY_S = 1.0
_DESCRIPTION = "Classifies texts with a sparse encoder."


def create_app(
    open_model: Callable[[], Served],
    settings: ServeSettings,
    *,
    life: ServerState | None = None,
    forwarding: Forwarding | None = None,
) -> FastAPI:
    """The server as an ASGI app.

    Args:
        open_model: opens and proves the model; called once, in a thread, when the app starts.
        settings: the limits.
        life: where the app is in its life, for a process that wants to watch and drain it.
        forwarding: which proxies are trusted to tell what address clients see; none if left out.
    """
    life = life or ServerState()
    metrics = Metrics()
    app = Described(
        bodies=BODIES,
        form=lambda: _form_of(life, settings),
        title="spd serve",
        description=_DESCRIPTION,
        version=version_of(PACKAGE) or "unknown",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda app: _living(open_model, settings, life, metrics),
    )
    router = Routes(life, settings, metrics).router()
    app.router.routes.extend(_answering(router))
    app.include_router(router)  # for its description alone: the routes before it answer
    for kind in (SpdError, ClientLeft, HTTPException):
        app.add_exception_handler(kind, on_error)
    paths = {route.path for route in app.router.routes if isinstance(route, Route)}
    app.add_middleware(
        Watched,
        life=life,
        metrics=metrics,
        forwarding=forwarding or Forwarding(),
        routes=paths,
    )
    return app


def _form_of(life: ServerState, settings: ServeSettings) -> Form:
    """What requests look like to the model that is open; to any, while there is none."""
    if life.opened is None:
        return Form(takes="either", max_inputs=settings.max_inputs)
    return form_of(life.opened.served, settings)


def _answering(router: APIRouter) -> list[Route]:
    """The handlers without FastAPI, whose work they do themselves; HEAD wherever there is GET."""
    return [
        Route(route.path, route.endpoint, methods=route.methods)
        for route in router.routes
        if isinstance(route, APIRoute)
    ]


@contextlib.asynccontextmanager
async def _living(
    open_model: Callable[[], Served], settings: ServeSettings, life: ServerState, metrics: Metrics
) -> AsyncIterator[None]:
    """Open the model beside the running app; close it at the end."""
    opening = asyncio.create_task(_open(open_model, settings, life, metrics))
    watching = asyncio.create_task(_watch(life, settings))
    try:
        yield
    finally:
        watching.cancel()
        await opening
        if life.opened is not None:
            await asyncio.to_thread(life.opened.close, _CLOSE_WITHIN_S)


async def _watch(life: ServerState, settings: ServeSettings) -> None:
    """Do not let clients wait for a batch that never comes back."""
    while True:
        await asyncio.sleep(min(_WATCH_EVERY_S, settings.stall_timeout_s))
        if life.opened is not None:
            life.opened.engine.give_up_stalled()


async def _open(
    open_model: Callable[[], Served], settings: ServeSettings, life: ServerState, metrics: Metrics
) -> None:
    """Open the model and say so, or say why it did not open."""
    try:
        served = await asyncio.to_thread(open_model)
        metrics.describe_build(build_labels(served))
        life.start(Classifier(served, settings, metrics))
    except SpdError as err:
        life.fail(err)
    except Exception as err:  # noqa: BLE001  # whatever it is, the process must end with it
        _log.exception("the model did not open")
        life.fail(Unavailable("the model did not open", got=repr(err), fix="see the log above"))
