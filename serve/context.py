"""What the handlers of all protocols share: the state, the settings, the metrics, and their use.

A handler gets the model once, before it reads the body. A request is then answered even if the
server begins to drain before its body has arrived.
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
from serve.disconnect import cancel_on_disconnect
from serve.http_errors import request_id_of
from serve.metrics import Metrics
from serve.model_control import ModelControl
from serve.request_body import read_json
from serve.request_record import Observer, RequestRecord
from serve.settings import ServeSettings
from serve.state import ServerState
from serve.texts import Text
from spd_deploy.domain.errors import UnknownModel
from spd_deploy.domain.text import Side, Tokens

_MAX_NAME = 60
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerContext:
    """The parts of one app that handlers use."""

    state: ServerState
    settings: ServeSettings
    metrics: Metrics
    control: ModelControl
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
            UnknownModel: it is not the one that is served.
            NotReady: the server takes no requests.
        """
        classifier = self.classifier()
        refuse_other_model(name, classifier.served.name)
        return classifier

    async def json_of(self, request: Request) -> Any:
        """The request's body as a JSON value."""
        return await read_json(request, max_bytes=self.settings.max_body_bytes)


async def classify(
    request: Request,
    classifier: Classifier,
    texts: Sequence[Text],
    *,
    truncate: bool,
    raw_scores: bool,
    side: Side | None = None,
) -> tuple[list[Classified], Timing]:
    """The answers to a request's texts; the work ends early where the client disconnects."""
    work = classifier.classify(
        texts,
        truncate=truncate,
        raw_scores=raw_scores,
        request_id=request_id_of(request.scope),
        side=side,
    )
    return await cancel_on_disconnect(request, work)


async def classify_rows(
    request: Request, classifier: Classifier, rows: Sequence[Tokens]
) -> tuple[list[Classified], Timing]:
    """The answers to rows of token ids; the work ends early where the client disconnects."""
    work = classifier.classify_rows(rows, request_id=request_id_of(request.scope))
    return await cancel_on_disconnect(request, work)


def refuse_other_model(name: str, served: str) -> None:
    """Refuse a name that is not that of the model that is served.

    Raises:
        UnknownModel: the names differ.
    """
    if name != served:
        shown = name.encode("ascii", "backslashreplace").decode("ascii")[:_MAX_NAME]
        raise UnknownModel("no such model", got=shown, fix=f"this server has {served}")


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
