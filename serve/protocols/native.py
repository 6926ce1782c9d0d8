"""Our own form of a request, in which nothing can be taken for something else.

    POST /v1/classify   {"inputs": [{"text": "..", "text_pair": ".."}], "truncate": true}
    ->  {"model": "..", "results": [{"labels": [{"label": "..", "score": 0.98}, ..],
                                     "n_tokens": 9, "truncated": false, "dropped_tokens": 0}]}

One result an input, in the order of the inputs; each result's labels best first.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, FailFast, Field

from serve.classifier import Classified
from serve.protocols.form import Form
from serve.reading import Strict, inputs_of, refuse_count, validated
from serve.texts import Text


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is a whole one too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Input(Strict):
    """One text, or a pair where the model compares two."""

    text: str = Field(description="The text to classify; the first of a pair.")
    text_pair: str | None = Field(default=None, description="The second text of a pair.")


class ClassifyRequest(Strict):
    """Texts to classify."""

    inputs: Annotated[list[Input], FailFast()] = Field(min_length=1)
    raw_scores: bool = Field(default=False, description="Give logits instead of probabilities.")
    truncate: bool = Field(
        default=True, description="Cut a text that is too long, and say so; false refuses it."
    )
    top_k: Annotated[int, BeforeValidator(_whole), Field(ge=1)] | None = Field(
        default=None, description="Give only the best labels."
    )


class Score(BaseModel):
    """A label with its probability; its logit, where asked for; or a regression's number."""

    label: str
    score: float


class Result(BaseModel):
    """The answer to one input."""

    labels: list[Score] = Field(description="Best first.")
    n_tokens: int = Field(description="Tokens the model read, special ones included.")
    truncated: bool = Field(description="Whether the text was cut.")
    dropped_tokens: int = Field(
        description="How many tokens were cut off; at least so many where a text is so long that "
        "only its beginning was tokenised."
    )


class ClassifyReply(BaseModel):
    """One result an input."""

    model: str
    results: list[Result]


def request_from(value: Any, *, max_inputs: int) -> ClassifyRequest:
    """The request that a JSON value makes.

    Raises:
        Refusal: it makes none.
    """
    refuse_count(inputs_of(value), max_inputs=max_inputs)
    return validated(ClassifyRequest, value)


def texts_of(request: ClassifyRequest) -> list[Text]:
    """The texts to classify."""
    return [
        Text(text=one.text, pair=one.text_pair, where=f"inputs.{i}")
        for i, one in enumerate(request.inputs)
    ]


def example(form: Form) -> dict[str, Any]:
    """A body that a model of this form answers."""
    return {"inputs": [dict(zip(("text", "text_pair"), form.example, strict=False))]}


def fit(schemas: dict[str, Any], form: Form) -> None:
    """Change the schemas of the bodies to what a model of this form takes."""
    one, whole = schemas["Input"], schemas["ClassifyRequest"]
    fields = one["properties"]
    fields["text"] |= form.text
    match form.takes:
        case "pair":
            described = fields["text_pair"]["description"]
            fields["text_pair"] = {**fields["text"], "description": described, "title": "Text Pair"}
            one["required"] = ["text", "text_pair"]
        case "single":
            fields["text_pair"] = {
                "type": "null",
                "title": "Text Pair",
                "description": "This model takes single texts.",
            }
        case _:
            fields["text_pair"]["anyOf"][0] |= form.text
    whole["properties"]["inputs"]["maxItems"] = form.max_inputs
    whole["examples"] = [example(form)]


def reply(model: str, rows: list[Classified], *, top_k: int | None) -> dict[str, Any]:
    """The answer's JSON value, a :class:`ClassifyReply`."""
    return {
        "model": model,
        "results": [
            {
                "labels": [{"label": a.label, "score": a.score} for a in row.answers[:top_k]],
                "n_tokens": row.n_tokens,
                "truncated": row.dropped_tokens > 0,
                "dropped_tokens": row.dropped_tokens,
            }
            for row in rows
        ],
    }
