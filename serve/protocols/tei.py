"""``POST /predict`` as Text Embeddings Inference has it, for its clients.

    {"inputs": "text"}                                one text
    {"inputs": ["first", "second"]}                   ONE PAIR, not two texts
    {"inputs": [["text"], ["first", "second"], ..]}   a batch of texts and pairs
    ->  [{"score": 0.98, "label": ".."}, ..], best first; for a batch a list of those

A flat list is never a batch in this protocol, which is easy to get wrong. A flat list of one text
is that text, as in TEI. A flat list of three or more is refused, and so is a pair for a model of
single texts; both errors say to nest the texts.

Unknown fields are ignored, as in TEI: clients send them, such as the empty ``parameters`` of
``huggingface_hub.InferenceClient.text_classification``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from serve.classifier import Classified
from serve.context import JsonReply, classify
from serve.protocol import Endpoint, HttpProtocol
from serve.protocols.input_spec import InputSpec
from serve.request_body import Strict, inputs_of, refuse_count, validated
from serve.texts import Text
from spd_deploy.domain.errors import MalformedRequest

NEST = 'to classify several texts, nest each one: "inputs": [["first text"], ["second text"]]'

_ITEM = "a list of one text, or of a pair's two texts"
# By what the model takes: how many texts an item has, and the meaning of each shape of "inputs".
_SIZES = {
    "single": {"minItems": 1, "maxItems": 1},
    "pair": {"minItems": 2, "maxItems": 2},
    "either": {"minItems": 1, "maxItems": 2},
}
_FLAT = {
    "single": "One text, as the only item of a list.",
    "pair": "One pair; never two texts of a batch.",
    "either": "One text, or one pair; never two texts of a batch.",
}
_BATCH = {"single": "A batch of texts.", "pair": "A batch of pairs.",
          "either": "A batch of texts and pairs."}  # fmt: skip


class PredictRequest(Strict):
    """Texts to classify, as in TEI. Unknown fields are ignored, `parameters` too."""

    model_config = ConfigDict(extra="ignore")

    inputs: Annotated[Any, WithJsonSchema({"title": "Inputs"})]
    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool | None = Field(
        default=None,
        description="Cut texts longer than max_tokens; false refuses them; null is true.",
    )
    truncation_direction: Annotated[
        Literal["Right", "right", "Left", "left"], WithJsonSchema({"enum": ["Right", "right"]})
    ] = Field(
        default="Right", description="Only Right is possible: training cut texts on the right."
    )


class Prediction(BaseModel):
    """A label with its score."""

    score: float
    label: str


PredictReply = list[Prediction] | list[list[Prediction]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedPredict:
    """A validated request; if ``nested``, the answer is a list of lists."""

    texts: list[Text]
    nested: bool
    raw_scores: bool
    truncate: bool


class Tei(HttpProtocol):
    """Text Embeddings Inference."""

    def endpoints(self) -> Sequence[Endpoint]:
        """Classification, under each name that TEI has for it."""
        return [
            Endpoint(
                method="POST",
                path=path,
                handler=self.predict,
                body=(PredictRequest,),
                reply=PredictReply,
                described=path != "/",
            )
            for path in ("/predict", "/")
        ]

    async def predict(self, request: Request) -> Response:
        """Classify texts or pairs with the request and response of Text Embeddings Inference.

        A flat list is ONE PAIR and never a batch; to send several texts, nest each one:
        [["first text"], ["second text"]].
        """
        classifier = self._server.classifier()
        value = await self._server.json_of(request)
        parsed = request_from(value, max_inputs=self._server.settings.max_inputs)
        rows, timing = await classify(
            request,
            classifier,
            parsed.texts,
            truncate=parsed.truncate,
            raw_scores=parsed.raw_scores,
        )
        return JsonReply(reply(rows, nested=parsed.nested), timing)

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Narrow the schema of the request to the input that the open model takes."""
        item = {"type": "array", "items": spec.text, **_SIZES[spec.takes]}
        batch = {"type": "array", "items": item, "minItems": 1, "maxItems": spec.max_inputs}
        single = {**spec.text, "description": "One text."}
        whole = schemas["PredictRequest"]
        whole["properties"]["inputs"] |= {
            "oneOf": [
                *([] if spec.takes == "pair" else [single]),
                {**item, "description": _FLAT[spec.takes]},
                {**batch, "description": _BATCH[spec.takes]},
            ],
            "examples": [example(spec)["inputs"]],
        }
        whole["examples"] = [example(spec)]


def request_from(value: Any, *, max_inputs: int) -> ParsedPredict:
    """Validate a JSON value as a request.

    Raises:
        Refusal: a field is missing or of the wrong type, or there are too many inputs.
    """
    nested = _is_nested(inputs_of(value))
    if nested:
        refuse_count(inputs_of(value), max_inputs=max_inputs)
    request = validated(PredictRequest, value)
    if request.truncation_direction.lower() != "right":
        raise MalformedRequest(
            "truncation_direction can only be Right: the model was trained on texts cut there",
            fix="leave it out",
        )
    return ParsedPredict(
        texts=_texts(request.inputs) if nested else [_alone(request.inputs)],
        nested=nested,
        raw_scores=request.raw_scores,
        truncate=request.truncate is not False,
    )


def example(spec: InputSpec) -> dict[str, Any]:
    """An example body for a model with this input."""
    return {"inputs": spec.example[0] if len(spec.example) == 1 else list(spec.example)}


def reply(rows: list[Classified], *, nested: bool) -> list[Any]:
    """The answer's JSON value, a ``PredictReply``."""
    answers = [[{"score": a.score, "label": a.label} for a in row.answers] for row in rows]
    return answers if nested else answers[0]


def _is_nested(inputs: Any) -> bool:
    """Whether ``inputs`` is a batch: a list whose first item is not a text."""
    return isinstance(inputs, list) and not (inputs and isinstance(inputs[0], str))


def _texts(inputs: list[Any]) -> list[Text]:
    """The texts and pairs of a batch, with their positions."""
    return [_text(one, f"inputs.{i}") for i, one in enumerate(inputs)]


def _alone(inputs: Any) -> Text:
    """The only input: a bare text, or a list of one or two texts."""
    return Text(text=inputs) if isinstance(inputs, str) else _text(inputs, "inputs")


def _text(item: Any, where: str) -> Text:
    """A list of one text, or of the two texts of a pair."""
    match item:
        case [str() as text]:
            return Text(text=text, where=where)
        case [str() as first, str() as second]:
            return Text(text=first, pair=second, where=where)
        case _:
            form = "a text, a pair of texts, or a batch of lists of one or two texts"
            raise MalformedRequest(
                f"{where}: Input should be {form if where == 'inputs' else _ITEM}", fix=NEST
            )
