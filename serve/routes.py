"""The routes: the handler of each path."""

import json
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.classifier import Timing
from serve.disconnect import cancel_on_disconnect
from serve.http_errors import STATUS, error_responses, request_id_of
from serve.info import Info, info_of
from serve.metrics import CONTENT_TYPE, Metrics
from serve.openapi import request_body_of
from serve.pages import demo_page, docs_page
from serve.protocols import native, tei
from serve.request_body import read_json
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.errors import NotReady

BODIES: list[type[BaseModel]] = [native.ClassifyRequest, tei.PredictRequest]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Status(BaseModel):
    """The answer of `/livez` and `/readyz`."""

    status: str


class Routes:
    """The handlers, with the state, settings and metrics that they share.

    A handler gets the model once, before it reads the body. A request is then answered even if the
    server begins to drain before its body has arrived.
    """

    def __init__(self, state: ServerState, settings: ServeSettings, metrics: Metrics) -> None:
        self._state, self._settings, self._metrics = state, settings, metrics

    def router(self) -> APIRouter:
        """A router of every path with its handler and its OpenAPI description."""
        router = APIRouter()
        work: dict[int | str, Any] = error_responses(*STATUS)
        waiting: dict[int | str, Any] = error_responses(NotReady)
        for path, handler, model, reply in (
            ("/v1/classify", self.classify, native.ClassifyRequest, native.ClassifyReply),
            ("/predict", self.predict, tei.PredictRequest, tei.PredictReply),
        ):
            router.add_api_route(
                path,
                handler,
                methods=["POST"],
                response_model=reply,
                responses=work,
                openapi_extra=request_body_of(model),
            )
        router.add_api_route("/livez", self.livez, response_model=Status, responses=waiting)
        router.add_api_route("/readyz", self.readyz, response_model=Status, responses=waiting)
        router.add_api_route("/info", self.info, response_model=Info, responses=waiting)
        router.add_api_route("/metrics", self.metrics, response_class=_MetricsPage)
        router.add_api_route("/docs", self.docs, include_in_schema=False)
        router.add_api_route("/", self.root, methods=["GET", "POST"], include_in_schema=False)
        for path in ("/health", "/ping"):  # the names of /readyz in TEI
            router.add_api_route(path, self.readyz, include_in_schema=False)
        return router

    async def classify(self, request: Request) -> Response:
        """Classify texts or pairs.

        The results come in the order of the inputs. Each has its labels, best first, and tells how
        many tokens the model read and how many were cut off.
        """
        classifier = self._state.classifier()
        value = await self._value(request)
        parsed = native.request_from(value, max_inputs=self._settings.max_inputs)
        work = classifier.classify(
            native.texts_of(parsed),
            truncate=parsed.truncate,
            raw_scores=parsed.raw_scores,
            request_id=request_id_of(request.scope),
        )
        rows, timing = await cancel_on_disconnect(request, work)
        return _reply(native.reply(classifier.served.name, rows, top_k=parsed.top_k), timing)

    async def predict(self, request: Request) -> Response:
        """Classify texts or pairs with the request and response of Text Embeddings Inference.

        A flat list is ONE PAIR and never a batch; to send several texts, nest each one:
        [["first text"], ["second text"]].
        """
        classifier = self._state.classifier()
        value = await self._value(request)
        parsed = tei.request_from(value, max_inputs=self._settings.max_inputs)
        work = classifier.classify(
            parsed.texts,
            truncate=parsed.truncate,
            raw_scores=parsed.raw_scores,
            request_id=request_id_of(request.scope),
        )
        rows, timing = await cancel_on_disconnect(request, work)
        return _reply(tei.reply(rows, nested=parsed.nested), timing)

    async def livez(self, _: Request) -> Response:
        """Liveness probe: 200 while no batch hangs in the model; else 503."""
        self._state.refuse_dead()
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """Readiness probe: 200 while the model is open, self-tested and answering; else 503."""
        self._state.classifier()
        return JSONResponse({"status": "ready"})

    async def info(self, _: Request) -> Response:
        """Describe the model, its sparsity, its runtime and the server's limits."""
        served = self._state.classifier().served
        return JSONResponse(info_of(served, self._settings).model_dump())

    async def metrics(self, _: Request) -> Response:
        """Metrics in Prometheus' text format."""
        return _MetricsPage(self._metrics.page())

    async def docs(self, request: Request) -> Response:
        """The API reference as an HTML page."""
        return docs_page(request.app.openapi(), base=str(request.base_url).rstrip("/"))

    async def root(self, request: Request) -> Response:
        """GET: the demo page. POST: the same as `/predict`, as in Text Embeddings Inference."""
        return await self.predict(request) if request.method == "POST" else demo_page()

    async def _value(self, request: Request) -> Any:
        """The request's body as a JSON value."""
        return await read_json(request, max_bytes=self._settings.max_body_bytes)


class _Json(JSONResponse):
    """A JSON response; Starlette's makes an encoder for each."""

    def render(self, content: Any) -> bytes:
        """The body as UTF-8 JSON, by the one encoder of the module."""
        return _ENCODER.encode(content).encode()


class _MetricsPage(Response):
    """A response in Prometheus' text format."""

    media_type = CONTENT_TYPE


def _reply(value: Any, timing: Timing) -> Response:
    """A JSON response with the header ``Server-Timing``."""
    return _Json(value, headers={"Server-Timing": timing.server_timing()})
