"""What the handlers of all protocols share: the state, the settings, the metrics, and their use.

A handler gets the model once, before it reads the body. A request is then answered even if the
server begins to drain before its body has arrived.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from serve.classifier import Classified, Classifier, Timing
from serve.deadline import deadline_of
from serve.disconnect import cancel_on_disconnect
from serve.http_errors import request_id_of
from serve.metrics import Metrics
from serve.model_control import ModelControl
from serve.request_body import read_json
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
        return await read_json(request, self.settings.body_limits)


async def classify(
    request: Request,
    classifier: Classifier,
    texts: Sequence[Text],
    *,
    truncate: bool,
    raw_scores: bool,
    side: Side | None = None,
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
        deadline=deadline_of(request.scope, timeout_ms),
    )
    return await cancel_on_disconnect(request, work)


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
