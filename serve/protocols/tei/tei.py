"""Text Embeddings Inference (TEI), for its clients: classify, rerank and tokenise.

The bodies are in ``tei_bodies.py``, the names of its metrics in ``tei_metrics.py``, and its keys of
``/info`` in ``tei_info.py``. ``/health`` and ``/ping`` are among the server's own probes.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.classifier import Classified, Classifier, Timing
from serve.context import JsonReply, ServerContext, classify
from serve.http_errors import ErrorFormat
from serve.open_model import ServedModel
from serve.protocol import OF_A_NAMED_MODEL, Endpoint, Handler, HttpProtocol
from serve.protocols.input_spec import InputSpec
from serve.protocols.tei.tei_bodies import (
    PredictReply,
    PredictRequest,
    Rank,
    RerankRequest,
    SimpleToken,
    TeiWork,
    TokenizeRequest,
    predict_work,
    predictions,
    ranks,
    rerank_work,
    simple_tokens,
    specialise,
    tokenize_work,
)
from serve.protocols.tei.tei_metrics import TeiMetrics
from serve.request_body import name_in
from spd_deploy.domain.errors import EngineFailed, MalformedRequest

Answer = Callable[[Request, Classifier, Any], Awaitable[Response]]


class Tei(HttpProtocol):
    """The protocol of Text Embeddings Inference."""

    name: ClassVar = "tei"
    errors: ClassVar = ErrorFormat(statuses={EngineFailed: 424})

    def __init__(self, server: ServerContext) -> None:
        super().__init__(server)
        self._metrics = TeiMetrics()
        server.metrics.show_also(self._metrics.collect)

    def endpoints(self) -> Sequence[Endpoint]:
        """Its paths; ``/`` and ``/invocations`` are what the model is for."""
        return [
            _post("/predict", self.predict, PredictRequest, PredictReply),
            _post("/invocations", self.invocations, PredictRequest, PredictReply),
            _post("/", self.invocations, PredictRequest, PredictReply),
            _post("/rerank", self.rerank, RerankRequest, list[Rank], reranks=True),
            _post("/tokenize", self.tokenize, TokenizeRequest, list[list[SimpleToken]]),
        ]

    async def predict(self, request: Request) -> Response:
        """Classify texts or pairs with the request and response of Text Embeddings Inference.

        A flat list is ONE PAIR and never a batch; to send several texts, nest each one:
        [["first text"], ["second text"]].
        """
        return await self._answer(request, self._predicted)

    async def rerank(self, request: Request) -> Response:
        """Order texts by their score with a query: for models that give a pair one number."""
        return await self._answer(request, self._reranked)

    async def invocations(self, request: Request) -> Response:
        """The same as `/predict`; a body with a `query` is answered as by `/rerank`."""
        return await self._answer(request, self._invoked)

    async def tokenize(self, request: Request) -> Response:
        """Tokenise one text or a list of texts; none is cut."""
        value = await self._server.json_of(request)
        classifier = self._classifier(request, value)
        texts, special = tokenize_work(value, max_inputs=self._server.settings.max_inputs)
        found = await classifier.encodings_of(texts, special_tokens=special)
        return JSONResponse(
            [simple_tokens(text.text, one) for text, one in zip(texts, found, strict=True)]
        )

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Narrow the schemas of the requests to the input that the open model takes."""
        specialise(schemas, spec)

    async def _answer(self, request: Request, answer: Answer) -> Response:
        """Read the body, get the model and answer."""
        value = await self._server.json_of(request)
        return await answer(request, self._classifier(request, value), value)

    def _classifier(self, request: Request, value: Any) -> Classifier:
        """The model that the body names; of one model, TEI's clients may say what they like."""
        several = len(self._server.state.models) > 1
        return self._server.answering(name_in(value) if several else None)

    async def _invoked(self, request: Request, classifier: Classifier, value: Any) -> Response:
        """The answer to a body of either kind."""
        is_rerank = isinstance(value, dict) and "query" in value
        return await (self._reranked if is_rerank else self._predicted)(request, classifier, value)

    async def _predicted(self, request: Request, classifier: Classifier, value: Any) -> Response:
        """The labels of each text."""
        work = predict_work(value, max_inputs=self._server.settings.max_inputs)
        rows, timing, headers = await self._run(request, classifier, work)
        return JsonReply(predictions(rows, nested=work.nested), timing, headers)

    async def _reranked(self, request: Request, classifier: Classifier, value: Any) -> Response:
        """The texts in the order of their score."""
        refuse_other_than_reranker(classifier.served)
        asked, work = rerank_work(value, max_inputs=self._server.settings.max_inputs)
        rows, timing, headers = await self._run(request, classifier, work)
        return JsonReply(ranks(asked, rows), timing, headers)

    async def _run(
        self, request: Request, classifier: Classifier, work: TeiWork
    ) -> tuple[list[Classified], Timing, dict[str, str]]:
        """Classify the texts, count the request, and make TEI's headers."""
        start = time.perf_counter()
        with self._metrics.request("batch" if work.nested else "single", len(work.texts)):
            rows, timing = await classify(
                request,
                classifier,
                work.texts,
                truncate=work.truncate,
                raw_scores=work.raw_scores,
                side=work.side,
            )
        total_s = time.perf_counter() - start
        lengths = [row.n_tokens for row in rows]
        self._metrics.answered(total_s, lengths)
        device = classifier.served.session.description.device
        return rows, timing, headers_of(work, lengths, timing, total_s, device=device)


def refuse_other_than_reranker(served: ServedModel) -> None:
    """Refuse a model that does not give a pair one number.

    Raises:
        MalformedRequest: the model takes single texts, or has several labels.
    """
    if not served.reranks:
        raise MalformedRequest(
            "this model does not rerank: that needs one that gives a pair of texts one score",
            got=f"outputs: {served.task.outputs}, input: {served.takes}",
            fix="use /predict",
        )


def headers_of(
    work: TeiWork, lengths: Sequence[int], timing: Timing, total_s: float, *, device: str
) -> dict[str, str]:
    """TEI's headers: whole milliseconds, as there. ``Server-Timing`` is finer."""
    seconds = {
        "x-compute-time": total_s,
        "x-total-time": total_s,
        "x-tokenization-time": timing.tok_s,
        "x-queue-time": timing.tok_queue_s + timing.queue_s,
        "x-inference-time": timing.run_s,
    }
    return {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-characters": str(work.characters),
        "x-compute-tokens": str(sum(lengths)),
        **{name: str(int(1000 * value)) for name, value in seconds.items()},
    }


def _post(
    path: str, handler: Handler, body: type[BaseModel], reply: Any, *, reranks: bool = False
) -> Endpoint:
    return Endpoint(
        method="POST",
        path=path,
        handler=handler,
        body=(body,),
        reply=reply,
        reranks=reranks,
        refusals=OF_A_NAMED_MODEL,
    )
