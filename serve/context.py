"""The context of all handlers: the state, the settings, the metrics, and their use.

A handler asks whether requests are taken before it reads the body. A request is then answered even
if the server begins to drain before its body has arrived. It gets the model after that, once: the
version that answers at that moment answers the whole request.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from serve.access import Access
from serve.classifier import Classified, Classifier, Timing
from serve.deadline import deadline_of
from serve.disconnect import cancel_on_disconnect
from serve.discovery import Discovery
from serve.hosted_model import refuse_full
from serve.http_errors import request_id_of
from serve.metrics import Metrics
from serve.model_control import ModelControl
from serve.request_body import read_json
from serve.request_record import Observer, RequestRecord, ask_model
from serve.settings import ServeSettings
from serve.state import ServerState
from serve.text_windows import AS_SERVED, AskedWindows
from serve.texts import Text
from spd_deploy.domain.text import Side, Tokens

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerContext:
    """The parts of one app that handlers use."""

    state: ServerState
    settings: ServeSettings
    metrics: Metrics
    control: ModelControl
    discovery: Discovery | None = None
    access: Access = field(default_factory=Access)
    observers: Sequence[Observer] = ()

    def answered(self, record: RequestRecord, status: int) -> None:
        """Count a request whose answer was sent, and hand it to the log and the tracing."""
        record.status, record.ended = status, time.perf_counter()
        self.metrics.request_answered(record.route, status, record.total_s, model=record.model)
        if not record.probe:
            for observer in self.observers:
                observer.observe(record)

    def classifier(self) -> Classifier:
        """The model for a new request.

        Raises:
            NotReady: the server takes no requests.
        """
        return self.state.classifier()

    def named(self, name: str) -> Classifier:
        """The model of this name for a new request.

        Raises:
            UnknownModel: there is no such model.
            NotReady: the server or the model takes no requests.
        """
        return self.state.classifier(name)

    def refuse_full(self, name: str | None) -> None:
        """Refuse a request where no model that it can be for has room; nothing of it is read.

        Where it can be for one model alone, it counts as one of that model.

        Raises:
            Overloaded: the queues are full.
        """
        models = self.state.candidates(name)
        if len(models) == 1:
            ask_model(models[0].name or "")
        refuse_full(models)

    def refuse_before_body(self, name: str | None = None) -> None:
        """Refuse a request that will find no model, before its body is read.

        Where the body may name one of several models, only the server's phase is known.

        Raises:
            UnknownModel: there is no model of this name.
            NotReady: the server, or the only model that it can be, takes no requests.
        """
        if name is None and len(self.state.models) > 1:
            self.state.refuse_requests()
        else:
            self.state.classifier(name)

    async def json_of(self, request: Request, name: str | None = None) -> Any:
        """The request's body as a JSON value, if the model of this name takes requests."""
        self.refuse_before_body(name)
        return await read_json(request, self.settings.body_limits)

    def answering(self, name: str | None) -> Classifier:
        """The version that answers a request whose body has arrived; the first model by default.

        The request counts as one of that model in the metrics and the log.

        Raises:
            UnknownModel: there is no such model.
            NotReady: the model takes no requests.
        """
        model = self.state.model(name)
        ask_model(model.name or "")
        return model.classifier()


async def classify(
    request: Request,
    classifier: Classifier,
    texts: Sequence[Text],
    *,
    truncate: bool,
    raw_scores: bool,
    side: Side | None = None,
    asked: AskedWindows = AS_SERVED,
    timeout_ms: float | None = None,
) -> tuple[list[Classified], Timing]:
    """The answers to a request's texts; the work ends early where the client disconnects.

    ``timeout_ms`` is how long the client waits by the request's body; else a header may say it.
    """
    work = classifier.classify(
        texts,
        truncate=truncate,
        raw_scores=raw_scores,
        request_id=request_id_of(request.scope),
        side=side,
        asked=asked,
        deadline=deadline_of(request.scope, timeout_ms),
    )
    rows, timing = await cancel_on_disconnect(request, work)
    if classifier.after_answer is not None:
        classifier.after_answer(texts, rows, classifier.served.task, asked)
    return rows, timing


async def classify_rows(
    request: Request,
    classifier: Classifier,
    rows: Sequence[Tokens],
    *,
    timeout_ms: float | None = None,
) -> tuple[list[Classified], Timing]:
    """The answers to rows of token ids; the work ends early where the client disconnects."""
    work = classifier.classify_rows(
        rows,
        request_id=request_id_of(request.scope),
        deadline=deadline_of(request.scope, timeout_ms),
    )
    return await cancel_on_disconnect(request, work)


class JsonReply(JSONResponse):
    """A JSON response with the header ``Server-Timing``; Starlette makes an encoder for each."""

    def __init__(
        self, value: Any, timing: Timing, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            value, headers={"Server-Timing": timing.server_timing(), **(headers or {})}
        )

    def render(self, content: Any) -> bytes:
        """The body as UTF-8 JSON, by the one encoder of the module."""
        return _ENCODER.encode(content).encode()
