"""The form of Text Embeddings Inference's ``POST /predict``, for the clients that speak it.

    {"inputs": "text"}                                one text
    {"inputs": ["first", "second"]}                   ONE PAIR, not two texts
    {"inputs": [["text"], ["first", "second"], ..]}   a batch of texts and pairs
    ->  [{"score": 0.98, "label": ".."}, ..], best first; for a batch a list of those

The middle form is the protocol's trap: a flat list is never a batch. A flat list of one text is
that text, as in TEI; one of three and more is refused, as is a pair for a model that takes single
texts, and both refusals say to nest.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from serve.classifier import Classified, Text
from serve.reading import Strict, inputs_of, refuse_count, validated
from spd_deploy.domain.errors import MalformedRequest

EXAMPLE: dict[str, Any] = {"inputs": "a film that is never dull"}
NEST = 'to classify several texts, nest each one: "inputs": [["first text"], ["second text"]]'

_TEXT = {"type": "string"}
_INPUTS = {
    "title": "Inputs",
    "oneOf": [
        {**_TEXT, "description": "One text."},
        {
            "type": "array",
            "items": _TEXT,
            "minItems": 1,
            "maxItems": 2,
            "description": "One pair; never two texts of a batch.",
        },
        {
            "type": "array",
            "items": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2},
            "minItems": 1,
            "description": "A batch of texts and pairs.",
        },
    ],
}


class PredictRequest(Strict):
    """Texts to classify, in TEI's form."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    inputs: Annotated[Any, WithJsonSchema(_INPUTS)] = Field(examples=[EXAMPLE["inputs"]])
    raw_scores: bool = Field(default=False, description="Give logits instead of probabilities.")
    truncate: bool | None = Field(default=None, description="As in TEI: null means true.")
    truncation_direction: Literal["Right", "right", "Left", "left"] = Field(
        default="Right", description="Only the right side can be cut, as training did."
    )


class Prediction(BaseModel):
    """A label with its score."""

    score: float
    label: str


PredictReply = list[Prediction] | list[list[Prediction]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request that was understood; ``nested`` asks for a list of answers."""

    texts: list[Text]
    nested: bool
    raw_scores: bool
    truncate: bool


def request_from(value: Any, *, max_inputs: int) -> Asked:
    """The request that a JSON value makes.

    Raises:
        Refusal: it makes none.
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
    return Asked(
        texts=[_text(one) for one in request.inputs] if nested else [_alone(request.inputs)],
        nested=nested,
        raw_scores=request.raw_scores,
        truncate=request.truncate is not False,
    )


def reply(rows: list[Classified], *, nested: bool) -> list[Any]:
    """The answer's JSON value, a ``PredictReply``."""
    answers = [[{"score": a.score, "label": a.label} for a in row.answers] for row in rows]
    return answers if nested else answers[0]


def _is_nested(inputs: Any) -> bool:
    """Whether this is a batch: a list that does not begin with a text."""
    return isinstance(inputs, list) and not (inputs and isinstance(inputs[0], str))


def _alone(inputs: Any) -> Text:
    """The only input: a bare text, or what an item of a batch may be."""
    return Text(text=inputs) if isinstance(inputs, str) else _text(inputs)


def _text(item: Any) -> Text:
    """A list of one text, or of a pair's two."""
    match item:
        case [str() as text]:
            return Text(text=text)
        case [str() as first, str() as second]:
            return Text(text=first, pair=second)
        case _:
            raise MalformedRequest(
                '"inputs" must be a text, a pair of texts, or a batch of lists of one or two texts',
                fix=NEST,
            )
