"""The requests and replies of Text Embeddings Inference.

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
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, WithJsonSchema

from serve.classifier import Classified
from serve.protocols.input_spec import InputSpec
from serve.request_body import Strict, field_of, refuse_count, validated
from serve.texts import Text
from spd_deploy.domain.errors import MalformedRequest
from spd_deploy.domain.text import Side

if TYPE_CHECKING:
    from tokenizers import Encoding

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
_QUESTION = "what is a good film"
_PASSAGES = ("a film that is never dull", "the bus was late")


class _Request(Strict):
    """The fields of every request that is classified."""

    model_config = ConfigDict(extra="ignore")

    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool | None = Field(
        default=None,
        description="Cut texts longer than max_tokens; false refuses them; null is true.",
    )
    truncation_direction: Literal["Right", "right", "Left", "left"] = Field(
        default="Right",
        description="The end of a text that is cut off. Default: the end that training cut off, "
        "which is Right for nearly every model.",
    )

    @property
    def side(self) -> Side | None:
        """Where to cut; None where the request does not say."""
        said = "truncation_direction" in self.model_fields_set
        return Side(self.truncation_direction.lower()) if said else None


class PredictRequest(_Request):
    """Texts to classify, as in TEI. Unknown fields are ignored, `parameters` too."""

    inputs: Annotated[Any, WithJsonSchema({"title": "Inputs"})]


class Prediction(BaseModel):
    """A label with its score."""

    score: float
    label: str


PredictReply = list[Prediction] | list[list[Prediction]]


class RerankRequest(_Request):
    """Texts to put in the order of their score with the query."""

    query: str
    texts: Annotated[list[str], FailFast()] = Field(min_length=1)
    return_text: bool = Field(default=False, description="Return each text beside its score.")


class Rank(BaseModel):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: str | None = Field(default=None, description="Only with `return_text`.")


def _listed(value: Any) -> Any:
    """A text alone as a list of one."""
    return [value] if isinstance(value, str) else value


class TokenizeRequest(Strict):
    """A text to tokenise, or a list of texts."""

    model_config = ConfigDict(extra="ignore")

    inputs: Annotated[
        list[str], FailFast(), BeforeValidator(_listed), WithJsonSchema({"title": "Inputs"})
    ]
    add_special_tokens: bool = True


class SimpleToken(BaseModel):
    """A token; `start` and `stop` are bytes of the text in UTF-8, null for a special token."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TeiWork:
    """A validated request; if not ``nested``, the answer is that of its only text."""

    texts: list[Text]
    nested: bool
    raw_scores: bool
    truncate: bool
    side: Side | None

    @property
    def characters(self) -> int:
        """Characters of all texts."""
        return sum(len(part) for text in self.texts for part in text.parts)


def predict_work(value: Any, *, max_inputs: int) -> TeiWork:
    """Validate a JSON value as a request of ``/predict``.

    Raises:
        Refusal: a field is missing or of the wrong type, or there are too many inputs.
    """
    nested = _is_nested(field_of(value, "inputs"))
    if nested:
        refuse_count(field_of(value, "inputs"), max_inputs=max_inputs)
    request = validated(PredictRequest, value)
    return TeiWork(
        texts=_texts(request.inputs) if nested else [_alone(request.inputs)],
        nested=nested,
        raw_scores=request.raw_scores,
        truncate=request.truncate is not False,
        side=request.side,
    )


def rerank_work(value: Any, *, max_inputs: int) -> tuple[RerankRequest, TeiWork]:
    """Validate a JSON value as a request of ``/rerank``: the query with each text is a pair.

    Raises:
        Refusal: a field is missing or of the wrong type, or there are too many texts.
    """
    refuse_count(field_of(value, "texts"), max_inputs=max_inputs, field="texts")
    request = validated(RerankRequest, value)
    return request, TeiWork(
        texts=[
            Text(text=request.query, pair=text, where=f"texts.{i}")
            for i, text in enumerate(request.texts)
        ],
        nested=True,
        raw_scores=request.raw_scores,
        truncate=request.truncate is not False,
        side=request.side,
    )


def tokenize_work(value: Any, *, max_inputs: int) -> tuple[list[Text], bool]:
    """Validate a JSON value as a request of ``/tokenize``: its texts, and whether special tokens.

    Raises:
        Refusal: a field is missing or of the wrong type, or there are too many texts.
    """
    inputs = field_of(value, "inputs")
    refuse_count(inputs, max_inputs=max_inputs)
    request = validated(TokenizeRequest, value)
    where = "inputs" if isinstance(inputs, str) else "inputs.{}"
    texts = [Text(text=text, where=where.format(i)) for i, text in enumerate(request.inputs)]
    return texts, request.add_special_tokens


def example(spec: InputSpec) -> dict[str, Any]:
    """An example body for a model with this input."""
    return {"inputs": spec.example[0] if len(spec.example) == 1 else list(spec.example)}


def predictions(rows: Sequence[Classified], *, nested: bool) -> list[Any]:
    """The answer's JSON value, a ``PredictReply``."""
    answers = [[{"score": a.score, "label": a.label} for a in row.answers] for row in rows]
    return answers if nested else answers[0]


def ranks(request: RerankRequest, rows: Sequence[Classified]) -> list[dict[str, Any]]:
    """The answer of ``/rerank``, a list of :class:`Rank`: the best first."""
    scores = [row.answers[0].score for row in rows]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [
        {
            "index": i,
            "score": scores[i],
            **({"text": request.texts[i]} if request.return_text else {}),
        }
        for i in order
    ]


def simple_tokens(text: str, encoding: "Encoding") -> list[dict[str, Any]]:
    """The tokens of one text, a list of :class:`SimpleToken`."""
    byte_at = list(accumulate((len(character.encode()) for character in text), initial=0))
    tokens = zip(
        encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
    )
    return [
        {"id": number, "text": token, "special": True, "start": None, "stop": None}
        if special
        else {
            "id": number,
            "text": text[start:stop],
            "special": False,
            "start": byte_at[start],
            "stop": byte_at[stop],
        }
        for number, token, special, (start, stop) in tokens
    ]


def specialise(schemas: dict[str, Any], spec: InputSpec) -> None:
    """Narrow the schemas of the requests to the input that the open model takes."""
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
    texts = {"type": "array", "items": spec.text, "minItems": 1, "maxItems": spec.max_inputs}
    rerank = schemas["RerankRequest"]
    rerank["properties"]["query"] |= spec.text
    rerank["properties"]["texts"] |= texts
    rerank["examples"] = [{"query": _QUESTION, "texts": list(_PASSAGES)}]
    tokenize = schemas["TokenizeRequest"]
    text = spec.tokenizable_text
    tokenize["properties"]["inputs"] = {
        "title": "Inputs",
        "anyOf": [text, {**texts, "items": text}],
    }
    tokenize["examples"] = [{"inputs": spec.example[0]}]


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
