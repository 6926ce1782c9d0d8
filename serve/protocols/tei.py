"""The form of Text Embeddings Inference's ``POST /predict``, for the clients that speak it.

    {"inputs": "text"}                                one text
    {"inputs": ["first", "second"]}                   ONE PAIR, not two texts
    {"inputs": [["text"], ["first", "second"], ..]}   a batch of texts and pairs
    ->  [{"score": 0.98, "label": ".."}, ..], best first; for a batch a list of those

The middle form is the protocol's trap: a flat list is never a batch. A flat list of one text is
that text, as in TEI; one of three and more is refused, as is a pair for a model that takes single
texts, and both refusals say to nest.

Unknown fields are ignored, as in TEI: clients send them, such as the empty ``parameters`` of
``huggingface_hub.InferenceClient.text_classification``.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from serve.classifier import Classified
from serve.protocols.form import Form
from serve.reading import Strict, inputs_of, refuse_count, validated
from serve.texts import Text
from spd_deploy.domain.errors import MalformedRequest

NEST = 'to classify several texts, nest each one: "inputs": [["first text"], ["second text"]]'

_ITEM = "a list of one text, or of a pair's two texts"
# By what the model takes: how many texts an item has, and what the forms of "inputs" mean.
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
    """Texts to classify, in TEI's form. Unknown fields are ignored, `parameters` too."""

    model_config = ConfigDict(extra="ignore")

    inputs: Annotated[Any, WithJsonSchema({"title": "Inputs"})]
    raw_scores: bool = Field(default=False, description="Give logits instead of probabilities.")
    truncate: bool | None = Field(default=None, description="As in TEI: null means true.")
    truncation_direction: Annotated[
        Literal["Right", "right", "Left", "left"], WithJsonSchema({"enum": ["Right", "right"]})
    ] = Field(default="Right", description="Only the right side can be cut, as training did.")


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
        texts=_texts(request.inputs) if nested else [_alone(request.inputs)],
        nested=nested,
        raw_scores=request.raw_scores,
        truncate=request.truncate is not False,
    )


def example(form: Form) -> dict[str, Any]:
    """A body that a model of this form answers."""
    return {"inputs": form.example[0] if len(form.example) == 1 else list(form.example)}


def fit(schemas: dict[str, Any], form: Form) -> None:
    """Change the schema of the body to what a model of this form takes."""
    item = {"type": "array", "items": form.text, **_SIZES[form.takes]}
    batch = {"type": "array", "items": item, "minItems": 1, "maxItems": form.max_inputs}
    single = {**form.text, "description": "One text."}
    whole = schemas["PredictRequest"]
    whole["properties"]["inputs"] |= {
        "oneOf": [
            *([] if form.takes == "pair" else [single]),
            {**item, "description": _FLAT[form.takes]},
            {**batch, "description": _BATCH[form.takes]},
        ],
        "examples": [example(form)["inputs"]],
    }
    whole["examples"] = [example(form)]


def reply(rows: list[Classified], *, nested: bool) -> list[Any]:
    """The answer's JSON value, a ``PredictReply``."""
    answers = [[{"score": a.score, "label": a.label} for a in row.answers] for row in rows]
    return answers if nested else answers[0]


def _is_nested(inputs: Any) -> bool:
    """Whether this is a batch: a list that does not begin with a text."""
    return isinstance(inputs, list) and not (inputs and isinstance(inputs[0], str))


def _texts(inputs: list[Any]) -> list[Text]:
    """The texts and pairs of a batch."""
    return [_text(one, f"inputs.{i}") for i, one in enumerate(inputs)]


def _alone(inputs: Any) -> Text:
    """The only input: a bare text, or what an item of a batch may be."""
    return Text(text=inputs) if isinstance(inputs, str) else _text(inputs, "inputs")


def _text(item: Any, where: str) -> Text:
    """A list of one text, or of a pair's two."""
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
