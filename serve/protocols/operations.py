"""Endpoints of operators and browsers: probes, facts, metrics, demo page, description.

``/health`` and ``/ping`` are the names that Text Embeddings Inference has for ``/readyz``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from serve.access import Audience
from serve.allowed_hosts import HOSTS, TRUSTED, AllowedHosts
from serve.info import Info, ModelOverview, info_of
from serve.metrics import CONTENT_TYPE
from serve.pages import demo_page, docs_page
from serve.protocol import LOOKING_UP, WHILE_STARTING, Endpoint, Handler, HttpProtocol


class Status(BaseModel):
    """The answer of `/livez` and `/readyz`."""

    status: str


class MetricsPage(Response):
    """A response in Prometheus' text format."""

    media_type = CONTENT_TYPE


class Operations(HttpProtocol):
    """The endpoints that answer without running a model."""

    name: ClassVar = "operations"

    def endpoints(self) -> Sequence[Endpoint]:
        """Paths of GET only."""
        return [
            _probe("/livez", self.livez),
            _probe("/readyz", self.readyz),
            _probe("/health", self.readyz),
            _probe("/ping", self.readyz),
            _get("/info", self.info, Info),
            Endpoint(
                method="GET",
                path="/info/{name}",
                handler=self.info,
                reply=Info,
                refusals=LOOKING_UP,
            ),
            Endpoint(
                method="GET",
                path="/metrics",
                handler=self.metrics,
                reply=MetricsPage,
                refusals=(),
                audience=Audience.METRICS,
            ),
            _page("/docs", self.docs),
            _page("/openapi.json", self.openapi),
            Endpoint(method="GET", path="/", handler=self.demo, reply=HTMLResponse, refusals=()),
        ]

    async def livez(self, _: Request) -> Response:
        """Liveness probe: 200 while no batch hangs in a model; else 503."""
        self._server.state.refuse_dead()
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """Readiness probe: 200 while every model is open, self-tested and answering; else 503."""
        self._server.state.refuse_unready()
        return JSONResponse({"status": "ready"})

    async def info(self, request: Request) -> Response:
        """Describe a model: its sparsity, its runtime and the server's limits.

        A path without a name describes the first model.
        """
        name = request.path_params.get("name")
        served = self._server.state.classifier(name).served
        models = [
            ModelOverview(model=one.name or "", version=one.version, ready=one.ready)
            for one in self._server.state.models
        ]
        return JSONResponse(info_of(served, self._server.settings, models).model_dump())

    async def metrics(self, _: Request) -> Response:
        """Metrics in Prometheus' text format."""
        return MetricsPage(self._server.metrics.page())

    async def docs(self, request: Request) -> Response:
        """The API reference as an HTML page."""
        return docs_page(request.app.openapi(), base=base_of(request))

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI description; behind a proxy it names the prefix of the paths there."""
        described = request.app.openapi()
        prefix = request.scope.get("root_path", "").rstrip("/")
        return JSONResponse({**described, "servers": [{"url": prefix}]} if prefix else described)

    async def demo(self, _: Request) -> Response:
        """The demo page of the model that is served."""
        return demo_page()


def base_of(request: Request) -> str:
    """The address of the server as the client sees it.

    Where the client names a host that is not this server's, it is the server's own address.
    """
    hosts: AllowedHosts = request.scope["state"][HOSTS]
    if request.scope["state"][TRUSTED] or hosts.knows(request.headers.get("host", "")):
        return str(request.base_url).rstrip("/")
    scheme, (host, port) = request.scope["scheme"], request.scope["server"]
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}{request.scope['root_path']}"


def _probe(path: str, handler: Handler) -> Endpoint:
    """A probe, which needs no key."""
    return replace(_get(path, handler, Status), audience=Audience.PROBES)


def _get(path: str, handler: Handler, reply: type[BaseModel]) -> Endpoint:
    """A path of GET, whose description lists the 503 of a server that is not ready."""
    return Endpoint(method="GET", path=path, handler=handler, reply=reply, refusals=WHILE_STARTING)


def _page(path: str, handler: Handler) -> Endpoint:
    """A page that the description leaves out, since it shows the description."""
    return Endpoint(method="GET", path=path, handler=handler, described=False)
