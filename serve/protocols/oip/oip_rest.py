"""The Open Inference Protocol v2 over REST, as Triton and KServe speak it.

    POST /v2/models/NAME/infer
    {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a good film"]}]}

With the binary tensor extension, raw tensors follow the JSON: the header
``Inference-Header-Content-Length`` tells where they begin. The model repository has the models that
are served, which may be unloaded and loaded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.access import Audience
from serve.classifier import Classifier, Timing
from serve.context import JsonReply, classify, classify_rows
from serve.http_errors import BAD_REQUEST, ErrorFormat
from serve.open_model import ServedModel
from serve.protocol import (
    EVERY_REFUSAL,
    LOOKING_UP,
    OF_A_NAMED_MODEL,
    WHILE_STARTING,
    Endpoint,
    Handler,
    HttpProtocol,
)
from serve.protocols.input_spec import InputSpec
from serve.protocols.oip.oip_bodies import (
    InferReply,
    InferRequest,
    Live,
    LoadRequest,
    ModelIndex,
    ModelMetadata,
    Nothing,
    Ready,
    RepositoryIndexRequest,
    ServerMetadata,
    specialise,
)
from serve.protocols.oip.oip_model import EXTENSIONS, answer_of, inference_of, inputs_of, outputs_of
from serve.protocols.oip.oip_repository import index_of, load, unload
from serve.protocols.oip.oip_tensors import Tensor, from_json, from_raw, to_json, to_raw
from serve.request_body import (
    parsed,
    read_body,
    refuse_compressed,
    refuse_cross_site,
    refuse_other_media,
    validated,
)
from spd_deploy.domain.errors import MalformedRequest, UnknownModel
from spd_deploy.domain.versions import PACKAGE, version_of

SERVER = "spd"
HEADER_LENGTH = "Inference-Header-Content-Length"
_MODEL = "/v2/models/{name}"
_VERSIONED = _MODEL + "/versions/{version}"
_REPOSITORY = "/v2/repository"


class OpenInference(HttpProtocol):
    """The Open Inference Protocol v2."""

    name: ClassVar = "oip"
    errors: ClassVar = ErrorFormat(statuses=BAD_REQUEST)

    def endpoints(self) -> Sequence[Endpoint]:
        """Its paths; a model's paths are there with and without a version."""
        repository = f"{_REPOSITORY}/models/{{name}}"
        return [
            _get("/v2", self.metadata, ServerMetadata, refusals=()),
            _probe("/v2/health/live", self.live, Live),
            _probe("/v2/health/ready", self.ready, Ready),
            *(
                endpoint
                for path in (_MODEL, _VERSIONED)
                for endpoint in (
                    _get(path, self.model_metadata, ModelMetadata, refusals=LOOKING_UP),
                    _probe(f"{path}/ready", self.model_ready, Ready, refusals=LOOKING_UP),
                    _post(f"{path}/infer", self.infer, InferRequest, InferReply),
                )
            ),
            _post(f"{_REPOSITORY}/index", self.index, RepositoryIndexRequest, list[ModelIndex]),
            *(
                replace(
                    _post(f"{repository}/{verb}", handler, LoadRequest, Nothing),
                    described=self._server.settings.model_control,
                )
                for verb, handler in (("unload", self.unload), ("load", self.load))
            ),
        ]

    async def metadata(self, _: Request) -> Response:
        """Name, version and extensions of the server."""
        return JSONResponse(
            {
                "name": SERVER,
                "version": version_of(PACKAGE) or "unknown",
                "extensions": list(EXTENSIONS),
            }
        )

    async def live(self, _: Request) -> Response:
        """The same as `/livez`."""
        self._server.state.refuse_dead()
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """The same as `/readyz`."""
        self._server.state.refuse_unready()
        return JSONResponse({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """200 while the model takes requests; else 503."""
        served = self._named(request).served
        return JSONResponse({"name": served.name, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """The model's inputs and outputs. A request has texts or token ids."""
        served = self._named(request).served
        return JSONResponse(
            ModelMetadata(
                name=served.name,
                versions=[served.version],
                platform=platform_of(served),
                inputs=inputs_of(served),
                outputs=outputs_of(served),
            ).model_dump()
        )

    async def infer(self, request: Request) -> Response:
        """Classify texts (`text`, and `text_pair` for pairs), or token ids (`input_ids`).

        The outputs are `labels` and `scores`, best first, and `logits` in the order of the model's
        outputs. Raw tensors may follow the JSON, as the binary tensor extension has it.
        """
        arrived = self._named(request)
        with arrived.used():
            value, raw = await self._body(request)
            asked = validated(InferRequest, value)
            classifier = self._server.answering(request.path_params["name"])
            if "version" in request.path_params:  # this one, even if a newer one answers by now
                classifier = arrived
            return await self._inferred(request, classifier, asked, raw)

    async def _inferred(
        self, request: Request, classifier: Classifier, asked: InferRequest, raw: bytes
    ) -> Response:
        """The outputs of one request."""
        outputs = [(one.name, one.parameters) for one in asked.outputs or ()]
        work = inference_of(
            _tensors(asked, raw),
            outputs,
            asked.parameters,
            classifier.served,
            max_inputs=self._server.settings.max_inputs,
        )
        if work.rows:
            rows, timing = await classify_rows(
                request, classifier, work.rows, timeout_ms=work.timeout_ms
            )
        else:
            rows, timing = await classify(
                request,
                classifier,
                work.texts,
                truncate=work.truncate,
                asked=work.asked,
                raw_scores=False,
                timeout_ms=work.timeout_ms,
            )
        served = classifier.served
        reply: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
        if asked.id is not None:
            reply["id"] = asked.id
        return _reply(reply, asked, answer_of(rows, work.outputs), timing)

    async def index(self, request: Request) -> Response:
        """Each model with its state: READY, or UNAVAILABLE with the reason.

        A version that was refused is listed with the reason, beside the one that answers; so is a
        model of the repository that is not loaded.
        """
        value = await self._optional_body(request)
        asked = validated(RepositoryIndexRequest, value)
        found = await index_of(self._server, only_ready=asked.ready)
        return JSONResponse([one.model_dump() for one in found])

    async def load(self, request: Request) -> Response:
        """Answer from the newest version: of a model that was unloaded, or that has changed.

        What answers stays as it is where nothing changed, and where the new one does not open.
        """
        asked = validated(LoadRequest, await self._optional_body(request))
        await load(self._server, request.path_params["name"], asked.parameters)
        return JSONResponse({})

    async def unload(self, request: Request) -> Response:
        """Refuse new requests, let those in flight finish, and free the model's memory.

        The model is not ready until it is loaded again.
        """
        validated(LoadRequest, await self._optional_body(request))
        await unload(self._server, request.path_params["name"])
        return JSONResponse({})

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:
        """Give the schemas of the requests what the open model takes."""
        specialise(schemas, spec)

    def _named(self, request: Request) -> Classifier:
        """The model that the path names.

        Raises:
            UnknownModel: there is no model of this name, or another version of it answers.
            NotReady: it takes no requests.
        """
        found = self._server.named(request.path_params["name"])
        refuse_other_version(request.path_params.get("version", ""), found.served.version)
        return found

    async def _body(self, request: Request) -> tuple[Any, bytes]:
        """The JSON of the body, and the raw tensors that follow it."""
        length = request.headers.get(HEADER_LENGTH)
        if length is None and "content-type" in request.headers:
            refuse_other_media(request.scope)
        else:
            refuse_compressed(request.scope)
            refuse_cross_site(request.scope)
        limits = self._server.settings.body_limits
        body = await read_body(request, max_bytes=limits.max_bytes)
        if length is None:
            return await parsed(body, limits), b""
        if not length.isdecimal() or int(length[:20]) > len(body):
            raise MalformedRequest(
                f"{HEADER_LENGTH} is not a length within the body",
                fix="send the length of the JSON",
            )
        size = int(length)
        return await parsed(body[:size], limits), body[size:]

    async def _optional_body(self, request: Request) -> Any:
        """The JSON of a body, an empty object where there is none."""
        refuse_compressed(request.scope)
        refuse_cross_site(request.scope)
        limits = self._server.settings.body_limits
        body = await read_body(request, max_bytes=limits.max_bytes)
        return await parsed(body, limits) if body.strip() else {}


def refuse_other_version(version: str, served: str) -> None:
    """Refuse a version of the model that does not answer; an empty one is any.

    Raises:
        UnknownModel: it is not the version that is served.
    """
    if version not in ("", served):
        shown = version.encode("ascii", "backslashreplace").decode()[:20]
        raise UnknownModel("no such version of the model", got=shown, fix=f"use {served}")


def platform_of(served: ServedModel) -> str:
    """The model's platform: the format and the runtime."""
    return f"{served.card.format}_{served.session.description.runtime}"


def _tensors(asked: InferRequest, raw: bytes) -> list[Tensor]:
    """The inputs; those with ``binary_data_size`` take their bytes from ``raw`` in order."""
    found, place = [], 0
    for one in asked.inputs:
        size = one.parameters.get("binary_data_size")
        if size is None:
            found.append(from_json(one.name, one.datatype, one.shape, one.data))
            continue
        if type(size) is not int or size < 0 or place + size > len(raw):
            raise MalformedRequest(
                f"{one.name[:40]}: binary_data_size is not a length within the body",
                fix="send the length of the tensor in bytes",
            )
        found.append(from_raw(one.name, one.datatype, one.shape, raw[place : place + size]))
        place += size
    if place != len(raw):
        raise MalformedRequest(
            "the body has more raw bytes than its inputs tell",
            got=f"{len(raw)}, {place} told",
            fix="give each input its binary_data_size",
        )
    return found


def _reply(
    reply: dict[str, Any], asked: InferRequest, outputs: Sequence[Tensor], timing: Timing
) -> Response:
    """The outputs in JSON, or those that were asked for as binary data after it."""
    parameters = {one.name: one.parameters for one in asked.outputs or ()}
    every = asked.parameters.get("binary_data_output") is True
    described, raws = [], []
    for tensor in outputs:
        if _is_binary(parameters.get(tensor.name, {}), every=every):
            one, raw = to_raw(tensor)
            raws.append(raw)
        else:
            one = to_json(tensor)
        described.append(one)
    reply["outputs"] = described
    if not raws:
        return JsonReply(reply, timing)
    head = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(
        b"".join([head, *raws]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head)), "Server-Timing": timing.server_timing()},
    )


def _is_binary(parameters: Mapping[str, Any], *, every: bool) -> bool:
    """Whether an output is asked for as binary data; what it says itself comes first."""
    return parameters.get("binary_data", every) is True


def _get(
    path: str, handler: Handler, reply: Any, refusals: tuple[Any, ...] = WHILE_STARTING
) -> Endpoint:
    return Endpoint(method="GET", path=path, handler=handler, reply=reply, refusals=refusals)


def _probe(
    path: str, handler: Handler, reply: Any, refusals: tuple[Any, ...] = WHILE_STARTING
) -> Endpoint:
    return replace(_get(path, handler, reply, refusals), audience=Audience.PROBES)


def _post(path: str, handler: Handler, body: type[Any], reply: Any) -> Endpoint:
    refusals = OF_A_NAMED_MODEL if "{" in path else EVERY_REFUSAL
    return Endpoint(
        method="POST",
        path=path,
        handler=handler,
        body=(body,),
        body_required=not path.startswith(_REPOSITORY),
        reply=reply,
        refusals=refusals,
    )
