"""vLLM's pooling API: ``/classify``, ``/score`` and ``/v1/models``, in the manner of OpenAI's.

    {"input": "text"}   {"input": ["text", "text"]}   {"input": [101, 1037, 102]}
    ->  {"object": "list", "data": [{"index": 0, "label": "..", "probs": [0.1, 0.9], ..}], ..}

``probs`` are in the order of the model's outputs. As in vLLM a text that is too long is refused
unless ``truncate_prompt_tokens`` is -1, and unknown fields are ignored. A pair has no place in
``/classify``; ``/score`` is for models that give a pair one score.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.classifier import Classified, Classifier, Timing
from serve.context import JsonReply, ServerContext, classify, classify_rows
from serve.http_errors import BAD_REQUEST, ERROR_FORMAT, ErrorFormat, request_id_of
from serve.open_model import ServedModel
from serve.protocol import OF_A_NAMED_MODEL, WHILE_STARTING, Endpoint, HttpProtocol
from serve.protocols.input_spec import InputSpec
from serve.protocols.vllm.vllm_bodies import (
    ModelList,
    OpenAIErrorBody,
    OpenAIModel,
    VllmClassifyReply,
    VllmClassifyRequest,
    VllmRequest,
    VllmScoreReply,
    VllmScoreRequest,
    error_body,
    specialise,
)
from serve.request_body import field_of, name_in, refuse_count, validated, whole
from serve.texts import Text, errors_at
from serve.token_rows import row_of
from spd_deploy.domain.errors import MalformedRequest
from spd_deploy.domain.text import Tokens

Ran = tuple[list[Classified], Timing]

_OWNER = "spd"
# Other names that vLLM has for text_1 and text_2.
_SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class Vllm(HttpProtocol):
    """vLLM's classification and scoring."""

    name: ClassVar = "vllm"
    errors: ClassVar = ErrorFormat(model=OpenAIErrorBody, body=error_body, statuses=BAD_REQUEST)

    def __init__(self, server: ServerContext) -> None:
        super().__init__(server)
        self._created = _now()

    def endpoints(self) -> Sequence[Endpoint]:
        """Its paths; ``/v1/classify`` belongs to the native protocol, which hands bodies on."""
        return [
            Endpoint(
                method="POST",
                path="/classify",
                handler=self.classify,
                body=(VllmClassifyRequest,),
                reply=VllmClassifyReply,
                refusals=OF_A_NAMED_MODEL,
            ),
            *(
                Endpoint(
                    method="POST",
                    path=path,
                    handler=self.score,
                    body=(VllmScoreRequest,),
                    reply=VllmScoreReply,
                    refusals=OF_A_NAMED_MODEL,
                    reranks=True,
                )
                for path in ("/score", "/v1/score")
            ),
            Endpoint(
                method="GET",
                path="/v1/models",
                handler=self.models,
                reply=ModelList,
                refusals=WHILE_STARTING,
            ),
        ]

    async def classify(self, request: Request) -> Response:
        """Classify texts or token ids with the request and the reply of vLLM."""
        return await self.classified(request, await self._server.json_of(request))

    async def classified(self, request: Request, value: Any) -> Response:
        """The reply to a body of ``/classify``; errors take vLLM's form from here on."""
        request.scope["state"][ERROR_FORMAT] = self.errors
        asked = validated(VllmClassifyRequest, value)
        classifier = self._server.answering(asked.model)
        served = classifier.served
        _refuse_unsupported(asked, served)
        limit = self._server.settings.max_inputs
        inputs = _inputs_of(asked.input, limit)
        if isinstance(inputs[0], list):
            found = [_row(served, ids, i) for i, ids in enumerate(inputs)]
            ran = await classify_rows(request, classifier, found)
        else:
            texts = [_text(one, i) for i, one in enumerate(inputs)]
            ran = await _run(request, classifier, texts, asked)
        data = [
            {
                "index": i,
                "label": row.label,
                "probs": (scores := _scores(row, asked)),
                "num_classes": len(scores),
            }
            for i, row in enumerate(ran[0])
        ]
        return _reply("classify", request, asked, served, ran, data)

    async def score(self, request: Request) -> Response:
        """Score pairs of texts: for models that give a pair one number."""
        value = await self._server.json_of(request)
        classifier = self._server.answering(name_in(value))
        if not classifier.served.reranks:
            raise MalformedRequest(
                "this model does not score: that needs one that gives a pair of texts one score",
                fix="use /classify",
            )
        asked = validated(VllmScoreRequest, _with_plain_names(value))
        _refuse_unsupported(asked, classifier.served)
        pairs = _pairs(asked.text_1, asked.text_2, self._server.settings.max_inputs)
        ran = await _run(request, classifier, pairs, asked)
        data = [
            {"index": i, "object": "score", "score": _scores(row, asked)[0]}
            for i, row in enumerate(ran[0])
        ]
        return _reply("score", request, asked, classifier.served, ran, data)

    async def models(self, _: Request) -> Response:
        """List the models that are served, as OpenAI's clients ask for them."""
        self._server.refuse_before_body()
        ready = [model.classifier().served for model in self._server.state.models if model.ready]
        listed = [self._listed(served) for served in ready]
        return JSONResponse(ModelList(object="list", data=listed).model_dump())

    def _listed(self, served: ServedModel) -> OpenAIModel:
        """A model in the list."""
        return OpenAIModel(
            id=served.name,
            object="model",
            created=self._created,
            owned_by=_OWNER,
            root=served.name,
            parent=None,
            max_model_len=served.tokenizer.max_tokens,
        )

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Narrow the schemas of the requests to the input that the open model takes."""
        specialise(schemas, spec)


def _reply(
    kind: str,
    request: Request,
    asked: VllmRequest,
    served: ServedModel,
    ran: Ran,
    data: list[dict[str, Any]],
) -> Response:
    """The reply around the answers."""
    rows, timing = ran
    tokens = sum(row.n_tokens for row in rows)
    return JsonReply(
        {
            "id": f"{kind}-{asked.request_id or request_id_of(request.scope)}",
            "object": "list",
            "created": _now(),
            "model": served.name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        },
        timing,
    )


async def _run(
    request: Request, classifier: Classifier, texts: Sequence[Text], asked: VllmRequest
) -> Ran:
    """Classify texts, cut as the request says."""
    return await classify(
        request,
        classifier,
        texts,
        truncate=asked.truncate_prompt_tokens is not None,
        raw_scores=False,
        side=asked.side,
    )


def _scores(row: Classified, asked: VllmRequest) -> list[float]:
    """The scores in the order of the model's outputs; logits where no activation is wanted."""
    if asked.use_activation is False:
        logits: list[float] = row.logits_C.tolist()
        return logits
    return [answer.score for answer in sorted(row.answers, key=lambda answer: answer.index)]


def _refuse_unsupported(asked: VllmRequest, served: ServedModel) -> None:
    """Refuse what vLLM can and this server cannot.

    Raises:
        MalformedRequest: the request asks for a length of its own, or for no special tokens.
    """
    if asked.truncate_prompt_tokens not in (None, -1, served.tokenizer.max_tokens):
        raise MalformedRequest(
            "truncate_prompt_tokens can only be -1 or null: texts are cut as in training",
            got=asked.truncate_prompt_tokens,
            fix=f"send -1, which cuts at {served.tokenizer.max_tokens} tokens",
        )
    if isinstance(asked, VllmClassifyRequest) and not asked.add_special_tokens:
        raise MalformedRequest(
            "add_special_tokens can only be true: the model was trained with them",
            fix="leave it out, or send token ids",
        )


def _inputs_of(value: Any, limit: int) -> list[Any]:
    """The inputs as a list, of texts or of lists of token ids."""
    alone = isinstance(value, str) or (
        isinstance(value, list) and value and isinstance(value[0], int | float)
    )
    inputs = [value] if alone else value
    if not isinstance(inputs, list):
        raise _not_an_input("input", value)
    refuse_count(inputs, max_inputs=limit, field="input")
    return inputs


def _text(value: Any, index: int) -> Text:
    """One text with its position."""
    where = f"input.{index}"
    if not isinstance(value, str):
        raise _not_an_input(where, value)
    return Text(text=value, where=where)


def _row(served: ServedModel, ids: Any, index: int) -> Tokens:
    """One row of token ids."""
    where = f"input.{index}"
    numbers = [whole(one) for one in ids] if isinstance(ids, list) else [ids]
    if not all(type(one) is int for one in numbers):
        raise _not_an_input(where, ids)
    with errors_at(where):
        return row_of(served.tokenizer, numbers)


def _pairs(first: Any, second: Any, limit: int) -> list[Text]:
    """Each text of the first side with that of the second; one text goes with every other."""
    left, right = ([side] if isinstance(side, str) else side for side in (first, second))
    for name, side in (("text_1", left), ("text_2", right)):
        if not isinstance(side, list) or not all(isinstance(text, str) for text in side):
            raise MalformedRequest(
                f"{name}: Input should be a text or a list of texts", fix="send texts"
            )
        refuse_count(side, max_inputs=limit, field=name)
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise MalformedRequest(
            "the two lists have different lengths",
            got=f"{len(left)} and {len(right)}",
            fix="send one text and a list, or two lists of the same length",
        )
    return [
        Text(text=one, pair=other, where=f"pair {i}")
        for i, (one, other) in enumerate(zip(left, right, strict=True))
    ]


def _with_plain_names(value: Any) -> Any:
    """A body of ``/score`` with the sides under the names ``text_1`` and ``text_2``."""
    for first, second in _SIDES:
        if field_of(value, first) is not None and field_of(value, second) is not None:
            return {**value, "text_1": value[first], "text_2": value[second]}
    return value


def _not_an_input(where: str, value: object) -> MalformedRequest:
    return MalformedRequest(
        f"{where}: Input should be a text, token ids, or a list of either",
        got=type(value).__name__,
        fix="see /docs for the fields of the request",
    )


def _now() -> int:
    """The time in whole seconds since 1970."""
    return int(datetime.now(UTC).timestamp())
