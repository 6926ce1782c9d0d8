"""The requests and replies of vLLM, and OpenAI's form of an error."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from serve.http_errors import ErrorKind
from serve.protocols.input_spec import InputSpec
from serve.request_body import Strict, whole
from spd_deploy.domain.text import Side


class OpenAIError(BaseModel):
    """An error, in OpenAI's form."""

    message: str
    type: str
    param: str | None
    code: int = Field(description="The HTTP status.")


class OpenAIErrorBody(BaseModel):
    """An error as OpenAI's and vLLM's clients read it."""

    error: OpenAIError


class VllmRequest(Strict):
    """The fields of both requests."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = Field(
        default=None, description="The name of a model that is served. Default: the first one."
    )
    truncate_prompt_tokens: Annotated[int, BeforeValidator(whole)] | None = Field(
        default=None,
        description="-1 cuts a text that is too long; null refuses it.",
        json_schema_extra={"anyOf": [{"const": -1}, {"type": "null"}]},
    )
    truncation_side: Literal["left", "right"] | None = Field(
        default=None, description="The end of a text that is cut off. Default: as training did."
    )
    use_activation: bool | None = Field(
        default=None, description="false returns logits instead of probabilities."
    )
    request_id: str | None = Field(default=None, description="Comes back in the reply's `id`.")

    @property
    def side(self) -> Side | None:
        """Where to cut; None where the request does not say."""
        return None if self.truncation_side is None else Side(self.truncation_side)


class VllmClassifyRequest(VllmRequest):
    """Texts or token ids to classify, as in vLLM. Unknown fields are ignored."""

    input: Annotated[Any, WithJsonSchema({"title": "Input"})]
    add_special_tokens: bool = Field(
        default=True,
        description="Only true: the model was trained with them.",
        json_schema_extra={"const": True},
    )


class VllmScoreRequest(VllmRequest):
    """Pairs to score: one text with each of several, or two lists of the same length.

    vLLM's other names are read too: `queries` and `documents`, `queries` and `items`, `data_1` and
    `data_2`.
    """

    text_1: Annotated[Any, WithJsonSchema({"title": "Text 1"})]
    text_2: Annotated[Any, WithJsonSchema({"title": "Text 2"})]


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Classification(BaseModel):
    """The best label of a text, and the score of every label in the order of the outputs."""

    index: int
    label: str | None = Field(description="null where the model gives no label.")
    probs: list[float]
    num_classes: int


class ScoredPair(BaseModel):
    """The score of a pair."""

    index: int
    object: Literal["score"]
    score: float


class VllmClassifyReply(BaseModel):
    """The answers in the order of the texts."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: Usage


class VllmScoreReply(BaseModel):
    """The answers in the order of the pairs."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoredPair]
    usage: Usage


class OpenAIModel(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[OpenAIModel]


def error_body(kind: ErrorKind, message: str, request_id: str) -> dict[str, Any]:
    """An error's body, an :class:`OpenAIErrorBody`; the request id is in the header alone."""
    name = HTTPStatus(kind.status).phrase.title().replace(" ", "").removesuffix("Error")
    told = OpenAIError(message=message, type=f"{name}Error", param=None, code=kind.status)
    return {"error": told.model_dump()}


def specialise(schemas: dict[str, Any], spec: InputSpec) -> None:
    """Narrow the schemas of the requests to the input that the open model takes."""
    texts = {"type": "array", "items": spec.text, "minItems": 1, "maxItems": spec.max_inputs}
    many = {"type": "array", "items": spec.ids, "minItems": 1, "maxItems": spec.max_inputs}
    whole = schemas["VllmClassifyRequest"]
    whole["properties"]["model"] = {"title": "Model", "enum": [*spec.models, None]}
    of_texts = [] if spec.takes == "pair" else [spec.text, texts]
    whole["properties"]["input"] |= {"anyOf": [*of_texts, spec.ids, many]}
    text = list(spec.example_ids) if spec.takes == "pair" else spec.example[0]
    whole["examples"] = [{"model": spec.model, "input": text}]
    scored = schemas["VllmScoreRequest"]
    scored["properties"]["model"] = {"title": "Model", "enum": [*spec.models, None]}
    scored["properties"]["text_1"] |= spec.text
    scored["properties"]["text_2"] |= {"anyOf": [spec.text, texts]}
    scored["examples"] = [
        {"model": spec.model, "text_1": "a good film", "text_2": ["a film", "the bus"]}
    ]
