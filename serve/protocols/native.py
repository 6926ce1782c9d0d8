"""``POST /v1/classify``, the server's own protocol, with named fields.

    POST /v1/classify   {"inputs": [{"text": "..", "text_pair": ".."}], "truncate": true}
    ->  {"model": "..", "results": [{"labels": [{"label": "..", "score": 0.98}, ..],
                                     "predicted": [".."], "abstained": false,
                                     "n_tokens": 9, "windows": 1,
                                     "truncated": false, "dropped_tokens": 0}]}

One result an input, in the order of the inputs; each result's labels best first.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, FailFast, Field
from starlette.requests import Request
from starlette.responses import Response

from serve.classifier import Classified
from serve.context import JsonReply, ServerContext, classify
from serve.deadline import LONGEST_MS
from serve.protocol import OF_A_NAMED_MODEL, Endpoint, HttpProtocol
from serve.protocols.input_spec import InputSpec
from serve.protocols.vllm.vllm import Vllm
from serve.request_body import Strict, field_of, refuse_count, validated, whole
from serve.text_windows import (
    AskedWindows,
    LongTextsField,
    PoolingField,
    StrideField,
    describe_windows,
)
from serve.texts import Text


class Input(Strict):
    """One text, or a pair where the model compares two."""

    text: str = Field(description="The text to classify; the first of a pair.")
    text_pair: str | None = Field(default=None, description="The second text of a pair.")


class ClassifyRequest(Strict):
    """Texts to classify, and how the answers are given."""

    inputs: Annotated[list[Input], FailFast()] = Field(min_length=1)
    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool = Field(
        default=True, description="Cut texts that are longer than max_tokens; false refuses them."
    )
    long_texts: LongTextsField = None
    window_stride: StrideField = None
    window_pooling: PoolingField = None
    model: str | None = Field(
        default=None, description="The name of a model that is served. Default: the first one."
    )
    top_k: Annotated[int, Field(ge=1), BeforeValidator(whole)] | None = Field(
        default=None, description="Return only so many labels, best first. Default: all."
    )
    timeout_ms: Annotated[float, Field(gt=0, le=LONGEST_MS)] | None = Field(
        default=None,
        description="Milliseconds that the client waits; an answer that would come later is 504. "
        "The header X-Request-Timeout-Ms says the same. Default: no limit.",
    )


class Score(BaseModel):
    """A label with its probability, its logit (`raw_scores`), or the number of a regression."""

    label: str
    score: float


class Result(BaseModel):
    """The result of one input."""

    labels: list[Score] = Field(description="Best first.")
    predicted: list[str] = Field(
        description="The labels that the model gives by its thresholds: one; of a multi-label "
        "model any number; none where it abstains."
    )
    abstained: bool = Field(
        description="Whether no label is given since the best score is too small."
    )
    n_tokens: int = Field(
        description="Tokens that the model read, special tokens included, of all windows together."
    )
    windows: int = Field(description="Windows that the text was read in; 1 where it is in one.")
    truncated: bool = Field(description="Whether the text was cut.")
    dropped_tokens: int = Field(
        description="Tokens that were cut off; a lower bound where a text is so long that "
        "only its beginning was tokenised."
    )


class ClassifyReply(BaseModel):
    """The results in the order of the inputs."""

    model: str
    results: list[Result]


class Native(HttpProtocol):
    """The server's own protocol."""

    name: ClassVar = "native"

    def __init__(self, server: ServerContext) -> None:
        super().__init__(server)
        self._vllm = Vllm(server)

    def endpoints(self) -> Sequence[Endpoint]:
        """One path; vLLM has it too, so that a body with ``input`` is answered as by vLLM."""
        return [
            Endpoint(
                method="POST",
                path="/v1/classify",
                handler=self.classify,
                body=(ClassifyRequest,),
                reply=ClassifyReply,
                refusals=OF_A_NAMED_MODEL,
            )
        ]

    async def classify(self, request: Request) -> Response:
        """Classify texts or pairs.

        The results come in the order of the inputs. Each has its labels, best first, and tells how
        many tokens the model read and how many were cut off. A body with `input` in the place of
        `inputs` is answered as by `/classify`, with the reply of vLLM.
        """
        value = await self._server.json_of(request)
        if field_of(value, "inputs") is None and field_of(value, "input") is not None:
            return await self._vllm.classified(request, value)
        parsed = request_from(value, max_inputs=self._server.settings.max_inputs)
        classifier = self._server.answering(parsed.model)
        rows, timing = await classify(
            request,
            classifier,
            texts_of(parsed),
            truncate=parsed.truncate,
            raw_scores=parsed.raw_scores,
            asked=AskedWindows.of(parsed),
            timeout_ms=parsed.timeout_ms,
        )
        return JsonReply(reply(classifier.served.name, rows, top_k=parsed.top_k), timing)

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Narrow the schemas of the request to the input that the open model takes."""
        one, whole = schemas["Input"], schemas["ClassifyRequest"]
        fields = one["properties"]
        fields["text"] |= spec.text
        match spec.takes:
            case "pair":
                described = fields["text_pair"]["description"]
                fields["text_pair"] = {
                    **fields["text"],
                    "description": described,
                    "title": "Text Pair",
                }
                one["required"] = ["text", "text_pair"]
            case "single":
                fields["text_pair"] = {
                    "type": "null",
                    "title": "Text Pair",
                    "description": "This model takes single texts.",
                }
            case _:
                fields["text_pair"]["anyOf"][0] |= spec.text
        whole["properties"]["inputs"]["maxItems"] = spec.max_inputs
        whole["properties"]["model"] |= {"anyOf": [{"enum": [*spec.models, None]}]}
        describe_windows(whole, spec)
        whole["examples"] = [example(spec)]


def request_from(value: Any, *, max_inputs: int) -> ClassifyRequest:
    """Validate a JSON value as a request.

    Raises:
        Refusal: a field is missing, unknown or of the wrong type, or there are too many inputs.
    """
    refuse_count(field_of(value, "inputs"), max_inputs=max_inputs)
    return validated(ClassifyRequest, value, example='{"inputs": [{"text": "..."}]}')


def texts_of(request: ClassifyRequest) -> list[Text]:
    """The texts to classify, with their positions in the request."""
    return [
        Text(text=one.text, pair=one.text_pair, where=f"inputs.{i}")
        for i, one in enumerate(request.inputs)
    ]


def example(spec: InputSpec) -> dict[str, Any]:
    """An example body for a model with this input."""
    return {"inputs": [dict(zip(("text", "text_pair"), spec.example, strict=False))]}


def reply(model: str, rows: list[Classified], *, top_k: int | None) -> dict[str, Any]:
    """The answer's JSON value, a :class:`ClassifyReply`."""
    return {
        "model": model,
        "results": [
            {
                "labels": [{"label": a.label, "score": a.score} for a in row.answers[:top_k]],
                "predicted": row.given,
                "abstained": row.decided.abstained,
                "n_tokens": row.n_tokens,
                "windows": row.windows,
                "truncated": row.dropped_tokens > 0,
                "dropped_tokens": row.dropped_tokens,
            }
            for row in rows
        ],
    }
