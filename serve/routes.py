"""The routes: what each path answers, put together from parts that know nothing of each other."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.classifier import Timing
from serve.disconnect import unless_left
from serve.http_errors import STATUS, refusals
from serve.info import Info, info_of
from serve.metrics import CONTENT_TYPE, Metrics
from serve.openapi import body
from serve.pages import demo_page, docs_page
from serve.protocols import native, tei
from serve.request_body import read_json
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.errors import NotReady

BODIES: list[type[BaseModel]] = [native.ClassifyRequest, tei.PredictRequest]


class Status(BaseModel):
    """The answer of a probe."""

    status: str


class Routes:
    """The handlers, with what they share.

    A handler asks for the model once, before it reads the body: a request that was let in is
    answered even where the server begins to drain before its body has arrived.
    """

    def __init__(self, life: ServerState, settings: ServeSettings, metrics: Metrics) -> None:
        self._life, self._settings, self._metrics = life, settings, metrics

    def router(self) -> APIRouter:
        """Every path with its handler and its description."""
        router = APIRouter()
        work: dict[int | str, Any] = refusals(*STATUS)
        waiting: dict[int | str, Any] = refusals(NotReady)
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
                openapi_extra=body(model),
            )
        router.add_api_route("/livez", self.livez, response_model=Status, responses=waiting)
        router.add_api_route("/readyz", self.readyz, response_model=Status, responses=waiting)
        router.add_api_route("/info", self.info, response_model=Info, responses=waiting)
        router.add_api_route("/metrics", self.metrics, response_class=_MetricsPage)
        router.add_api_route("/docs", self.docs, include_in_schema=False)
        router.add_api_route("/", self.demo, include_in_schema=False)
        return router

    async def classify(self, request: Request) -> Response:
        """Classify texts or pairs.

        The answers come in the order of the inputs, each with its labels best first and with how
        much of the text the model read.
        """
        classifier = self._life.classifier()
        value = await self._value(request)
        asked = native.request_from(value, max_inputs=self._settings.max_inputs)
        work = classifier.classify(
            native.texts_of(asked), truncate=asked.truncate, raw_scores=asked.raw_scores
        )
        rows, timing = await unless_left(request, work)
        return _reply(native.reply(classifier.served.name, rows, top_k=asked.top_k), timing)

    async def predict(self, request: Request) -> Response:
        """Classify in the form of Text Embeddings Inference.

        A flat list is ONE PAIR and never a batch; to send several texts, nest each one:
        [["first text"], ["second text"]].
        """
        classifier = self._life.classifier()
        value = await self._value(request)
        asked = tei.request_from(value, max_inputs=self._settings.max_inputs)
        work = classifier.classify(
            asked.texts, truncate=asked.truncate, raw_scores=asked.raw_scores
        )
        rows, timing = await unless_left(request, work)
        return _reply(tei.reply(rows, nested=asked.nested), timing)

    async def livez(self, _: Request) -> Response:
        """Say whether the process works: it answers, and no batch hangs in the model."""
        self._life.refuse_dead()
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """Say whether requests are taken now: the model is open, proven, warm, and answers."""
        self._life.classifier()
        return JSONResponse({"status": "ready"})

    async def info(self, _: Request) -> Response:
        """Say what is served, how sparse it is, how it runs, and what the server allows."""
        served = self._life.classifier().served
        return JSONResponse(info_of(served, self._settings).model_dump())

    async def metrics(self, _: Request) -> Response:
        """Give all counters in Prometheus' text format."""
        return _MetricsPage(self._metrics.page())

    async def docs(self, request: Request) -> Response:
        """The API's description for people."""
        return docs_page(request.app.openapi(), base=str(request.base_url).rstrip("/"))

    async def demo(self, _: Request) -> Response:
        """The demo page."""
        return demo_page()

    async def _value(self, request: Request) -> Any:
        """The request's body."""
        return await read_json(request, max_bytes=self._settings.max_body_bytes)


class _MetricsPage(Response):
    """Prometheus' text format."""

    media_type = CONTENT_TYPE


def _reply(value: Any, timing: Timing) -> Response:
    """An answer with where its time went."""
    return JSONResponse(value, headers={"Server-Timing": timing.server_timing()})
