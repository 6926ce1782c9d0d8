"""KServe's protocol V1, which is that of TensorFlow Serving too.

    POST /v1/models/NAME:predict   {"instances": ["text", ["first", "second"], ..]}
    ->  {"predictions": [[{"label": "..", "score": 0.98}, ..], ..]}

An instance is a text, a list of a pair's two texts, or an object as in ``/v1/classify``. The
protocol leaves open what a prediction is; here it has every label, best first. KServe's own runtime
gives the index of the best class alone.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.context import JsonReply, classify
from serve.http_errors import BAD_REQUEST, ErrorFormat
from serve.protocol import LOOKING_UP, OF_A_NAMED_MODEL, Endpoint, HttpProtocol
from serve.protocols.input_spec import InputSpec
from serve.request_body import Strict, field_of, refuse_count, validated
from serve.text_windows import (
    AskedWindows,
    LongTextsField,
    PoolingField,
    StrideField,
    describe_windows,
)
from serve.texts import Text
from spd_deploy.domain.errors import MalformedRequest


class Parameters(Strict):
    """How the texts of a request are classified."""

    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool = Field(
        default=True, description="Cut texts that are longer than max_tokens; false refuses them."
    )
    long_texts: LongTextsField = None
    window_stride: StrideField = None
    window_pooling: PoolingField = None


class Instances(Strict):
    """Texts or pairs to classify. Unknown fields, such as `signature_name`, are ignored."""

    model_config = ConfigDict(extra="ignore")

    instances: Annotated[Any, WithJsonSchema({"title": "Instances"})]
    parameters: Parameters = Parameters()


class LabelScore(BaseModel):
    """A label with its score."""

    label: str
    score: float


class KServePredictions(BaseModel):
    """Every label of each instance, best first."""

    predictions: list[list[LabelScore]]


class ModelStatus(BaseModel):
    """Whether a model takes requests."""

    name: str
    ready: bool


class KServe(HttpProtocol):
    """KServe's protocol of version 1."""

    name: ClassVar = "kserve"
    errors: ClassVar = ErrorFormat(statuses=BAD_REQUEST)

    def endpoints(self) -> Sequence[Endpoint]:
        """Its two paths; the one with a verb first, since a name may hold a colon."""
        return [
            Endpoint(
                method="POST",
                path="/v1/models/{name}:predict",
                handler=self.predict,
                body=(Instances,),
                reply=KServePredictions,
                refusals=OF_A_NAMED_MODEL,
            ),
            Endpoint(
                method="GET",
                path="/v1/models/{name}",
                handler=self.status,
                reply=ModelStatus,
                refusals=LOOKING_UP,
            ),
        ]

    async def predict(self, request: Request) -> Response:
        """Classify texts or pairs with the request and response of KServe V1."""
        name = request.path_params["name"]
        value = await self._server.json_of(request, name)
        limit = self._server.settings.max_inputs
        refuse_count(field_of(value, "instances"), max_inputs=limit, field="instances")
        asked = validated(Instances, value)
        classifier = self._server.answering(name)
        rows, timing = await classify(
            request,
            classifier,
            texts_of(asked.instances),
            truncate=asked.parameters.truncate,
            raw_scores=asked.parameters.raw_scores,
            asked=AskedWindows.of(asked.parameters),
        )
        predictions = [[{"label": a.label, "score": a.score} for a in row.answers] for row in rows]
        return JsonReply({"predictions": predictions}, timing)

    async def status(self, request: Request) -> Response:
        """200 while the model takes requests; else 503."""
        served = self._server.named(request.path_params["name"]).served
        return JSONResponse({"name": served.name, "ready": True})

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Narrow the schema of the request to the input that the open model takes."""
        pair = {"type": "array", "items": spec.text, "minItems": 2, "maxItems": 2}
        forms = {"single": [spec.text], "pair": [pair], "either": [spec.text, pair]}
        whole = schemas["Instances"]
        whole["properties"]["instances"] |= {
            "type": "array",
            "items": {"anyOf": [*forms[spec.takes], {"$ref": "#/components/schemas/Input"}]},
            "minItems": 1,
            "maxItems": spec.max_inputs,
        }
        describe_windows(schemas["Parameters"], spec)
        one = spec.example[0] if len(spec.example) == 1 else list(spec.example)
        whole["examples"] = [{"instances": [one]}]


def texts_of(instances: Any) -> list[Text]:
    """The texts of the instances, with their positions.

    Raises:
        MalformedRequest: ``instances`` is not a list, or one of them is not an input.
    """
    if not isinstance(instances, list):
        raise MalformedRequest(
            "instances: Input should be a list", fix='send {"instances": ["a text"]}'
        )
    return [_text(one, f"instances.{i}") for i, one in enumerate(instances)]


def _text(instance: Any, where: str) -> Text:
    """One instance as a text."""
    match instance:
        case str() as text:
            return Text(text=text, where=where)
        case [str() as first, str() as second]:
            return Text(text=first, pair=second, where=where)
        case {"text": str() as first, "text_pair": str() | None as second, **more} if not more:
            return Text(text=first, pair=second, where=where)
        case {"text": str() as text, **more} if not more:
            return Text(text=text, where=where)
        case _:
            raise MalformedRequest(
                f"{where}: Input should be a text, a list of two texts, or an object with text "
                "and text_pair",
                fix="see /docs for the fields of the request",
            )
