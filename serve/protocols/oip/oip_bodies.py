"""The requests and replies of the Open Inference Protocol over REST."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, WithJsonSchema

from serve.protocols.input_spec import InputSpec
from serve.protocols.oip.oip_model import OUTPUTS, PAIR, TEXT, TensorMetadata
from serve.protocols.oip.oip_tensors import BYTES
from serve.request_body import Strict, whole

_Parameters = dict[str, Any]
_ONE: tuple[str, ...] = (TEXT,)
_TWO = (TEXT, PAIR)
_MAX_DIMENSIONS = 8


class _Request(Strict):
    """Unknown fields are ignored, as in Triton."""

    model_config = ConfigDict(extra="ignore")


class InferInput(_Request):
    """An input tensor; its data is here, or follows the JSON where `binary_data_size` is set."""

    name: str
    shape: Annotated[list[Annotated[int, BeforeValidator(whole)]], FailFast()] = Field(
        max_length=_MAX_DIMENSIONS
    )
    datatype: str = Field(description="BYTES for texts, INT64 for token ids.")
    parameters: _Parameters = Field(default_factory=dict)
    data: Annotated[Any, WithJsonSchema({"title": "Data", "type": "array"})] = None


class InferRequestedOutput(_Request):
    """An output to return."""

    name: str = Field(description="`labels`, `scores` or `logits`.")
    parameters: _Parameters = Field(
        default_factory=dict,
        description="`binary_data` for raw bytes; `classification` for the best classes as text.",
    )


class InferRequest(_Request):
    """Tensors to classify. Unknown fields are ignored."""

    id: str | None = Field(default=None, description="Comes back in the reply.")
    parameters: _Parameters = Field(
        default_factory=dict,
        description="`truncate`, true by default; `long_texts`, `window_stride` and "
        "`window_pooling` as in /v1/classify; `binary_data_output` for raw bytes of all.",
    )
    inputs: Annotated[list[InferInput], FailFast()] = Field(min_length=1)
    outputs: list[InferRequestedOutput] | None = Field(
        default=None, fail_fast=True, description="Default: all."
    )


class InferOutput(BaseModel):
    """An output tensor, in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    data: list[str | float]


class InferReply(BaseModel):
    """The output tensors of a request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class ServerMetadata(BaseModel):
    """The name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """A model's inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Whether the server lives."""

    live: bool


class Ready(BaseModel):
    """Whether the server, or the model of this name, takes requests."""

    name: str | None = None
    ready: bool


class RepositoryIndexRequest(_Request):
    """Which models to list; the body may be empty."""

    ready: bool = Field(default=False, description="Only those that take requests.")


class ModelIndex(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class LoadRequest(_Request):
    """The body may be empty. A `config` and files of one's own are refused."""

    parameters: _Parameters = Field(default_factory=dict)


class Nothing(BaseModel):
    """The empty object that answers a request without a result."""


def specialise(schemas: dict[str, Any], spec: InputSpec) -> None:
    """Give the schemas of the requests what the open model takes: here texts, not token ids.

    JSON Schema cannot say that data fill a shape, so that each number of rows has a schema.
    """
    sides = {"single": (_ONE,), "pair": (_TWO,), "either": (_ONE, _TWO)}[spec.takes]
    request = schemas["InferRequest"]
    request["properties"]["inputs"] = {
        "title": "Inputs",
        "description": "The texts: `text`, and `text_pair` for pairs, of as many rows. Token ids "
        "may come instead, as `input_ids` with `attention_mask` and `token_type_ids`.",
        "anyOf": [
            _tensors(names, rows, spec.text)
            for names in sides
            for rows in range(1, spec.max_inputs + 1)
        ],
    }
    schemas["InferRequestedOutput"]["properties"]["name"]["enum"] = list(OUTPUTS)
    inputs = [
        {"name": name, "shape": [1], "datatype": BYTES, "data": [text]}
        for name, text in zip(_TWO, spec.example, strict=False)
    ]
    request["examples"] = [{"inputs": inputs}]
    schemas["RepositoryIndexRequest"]["examples"] = [{"ready": True}]
    schemas["LoadRequest"]["examples"] = [{}]


def _tensors(names: tuple[str, ...], rows: int, text: dict[str, Any]) -> dict[str, Any]:
    """The schema of inputs of so many rows."""
    data = {"type": "array", "items": text, "minItems": rows, "maxItems": rows}
    tensors = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": name},
                "shape": {"const": [rows]},
                "datatype": {"const": BYTES},
                "data": data,
            },
        }
        for name in names
    ]
    size = {"minItems": len(names), "maxItems": len(names)}
    items = {"items": tensors[0]} if len(names) == 1 else {"prefixItems": tensors}
    return {"type": "array", **size, **items}
