"""The Open Inference Protocol v2 over gRPC, on a port of its own; needs the extra ``grpc``.

It runs in the event loop of the HTTP server and shares its model, limits, metrics and drain. Errors
are those of HTTP under gRPC's codes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from serve.access import Audience
from serve.context import ServerContext
from serve.deadline import Deadline, deadline_in
from serve.http_errors import CLIENT_CLOSED_REQUEST, told
from serve.middleware import request_id_from
from serve.protocols.oip.oip_messages import SERVICE, message
from serve.protocols.oip.oip_model import EXTENSIONS, answer_of, inference_of, inputs_of, outputs_of
from serve.protocols.oip.oip_repository import index_of, load, unload
from serve.protocols.oip.oip_rest import SERVER, platform_of, refuse_other_version
from serve.protocols.oip.oip_tensors import BYTES, Tensor, from_raw, raw_of
from serve.request_record import RequestRecord, recording
from serve.state import Phase
from serve.tls import ServerTls
from spd_deploy.domain.errors import MalformedRequest, NotReady, Overloaded, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
PROTOCOL = "oip-grpc"  # its name in the request log
_PROBES = ("ServerLive", "ServerReady", "ModelReady")
# Where a message has the elements of each datatype, if they are not raw.
_CONTENTS = {
    BYTES: "bytes_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}

# A reply, and metadata to send after it.
Answer = tuple[Any, dict[str, str]]
Method = Callable[[Any, "Call"], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """The facts of a call: its id, and when its client wants the reply."""

    request_id: str
    deadline: Deadline


class GrpcServer:
    """The gRPC server of one app."""

    def __init__(
        self, server: ServerContext, host: str, port: int, tls: ServerTls | None = None
    ) -> None:
        """Nothing listens before :meth:`start`."""
        self._server, self._host, self._port, self._tls = server, host, port, tls
        self._grpc: Any = None

    async def start(self) -> str:
        """Listen; returns the address.

        Raises:
            Unavailable: the port is taken, or the address is not this machine's.
        """
        self._grpc = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._server.settings.max_body_bytes),
            ]
        )
        methods = {name: self._handler(name, method) for name, method in self._methods().items()}
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = self._add_port(f"{host}:{self._port}")
        except RuntimeError as err:
            raise Unavailable(
                f"cannot listen on {self._host} port {self._port} for gRPC",
                fix="choose another --grpc-port, or stop what listens there",
            ) from err
        await self._grpc.start()
        return f"{host}:{port}"

    async def stop(self) -> None:
        """End every call that still runs, and close the port."""
        if self._grpc is not None:
            await self._grpc.stop(None)

    def _add_port(self, address: str) -> int:
        """Listen on the address, with the server's certificate if it has one; the port."""
        if (tls := self._tls) is None:
            return int(self._grpc.add_insecure_port(address))
        used = tls.pem

        def changed() -> Any:
            """The certificate for a new connection; None where it is the one of before."""
            nonlocal used
            if tls.pem == used:
                return None
            used = tls.pem
            return grpc.ssl_server_certificate_configuration([used])

        first = grpc.ssl_server_certificate_configuration([used])
        return int(
            self._grpc.add_secure_port(address, grpc.dynamic_ssl_server_credentials(first, changed))
        )

    def _methods(self) -> Mapping[str, Method]:
        """The methods of the service by name."""
        return {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    def _handler(self, name: str, method: Method) -> Any:
        """GRPC's handler of a method: counts the call, and turns an exception into a status."""
        route = f"/{SERVICE}/{name}"
        state, access = self._server.state, self._server.access
        audience = Audience.PROBES if name in _PROBES else Audience.CLIENTS

        async def handle(request: Any, context: Any) -> Any:
            sent = {
                name: value
                for name, value in context.invocation_metadata() or ()
                if isinstance(value, str)
            }
            request_id = request_id_from(sent.get("x-request-id"))
            record = RequestRecord(request_id, "POST", protocol=PROTOCOL, route=route)
            record.probe = audience is Audience.PROBES
            record.traceparent = sent.get("traceparent", "")
            record.tracestate = sent.get("tracestate", "")
            status = CLIENT_CLOSED_REQUEST
            state.in_flight += 1
            try:
                if access.needs_key(audience):
                    record.client = access.owner_of(
                        sent.get("authorization", ""), sent.get("x-api-key", "")
                    )
                call = Call(request_id=request_id, deadline=deadline_in(context.time_remaining()))
                with recording(record):
                    reply, more = await method(request, call)
                status = 200
                context.set_trailing_metadata(tuple({"x-request-id": request_id, **more}.items()))
                return reply
            except asyncio.CancelledError:
                raise
            except Exception as err:  # noqa: BLE001  # every call needs a status
                kind, text = told(err, request_id)
                status, record.code = kind.status, kind.code
                more = {"x-request-id": request_id, "spd-code": kind.code, **_pushback(err)}
                code = _CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT)
                await context.abort(code, text, tuple(more.items()))
            finally:
                state.in_flight -= 1
                self._server.answered(record, status)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=message(f"{name}Request").FromString,
            response_serializer=message(f"{name}Response").SerializeToString,
        )

    async def _live(self, _: Any, __: Call) -> Answer:
        try:
            self._server.state.refuse_dead()
        except NotReady:
            return message("ServerLiveResponse")(live=False), {}
        return message("ServerLiveResponse")(live=True), {}

    async def _ready(self, _: Any, __: Call) -> Answer:
        ready = self._server.state.takes_requests
        return message("ServerReadyResponse")(ready=ready), {}

    async def _model_ready(self, request: Any, _: Call) -> Answer:
        state = self._server.state
        if state.phase is Phase.STARTING:
            return message("ModelReadyResponse")(ready=False), {}
        model = state.model(request.name)
        refuse_other_version(request.version, model.version)
        ready = state.phase is Phase.READY and model.ready
        return message("ModelReadyResponse")(ready=ready), {}

    async def _metadata(self, _: Any, __: Call) -> Answer:
        reply = message("ServerMetadataResponse")(
            name=SERVER, version=version_of(PACKAGE) or "unknown", extensions=EXTENSIONS
        )
        return reply, {}

    async def _model_metadata(self, request: Any, _: Call) -> Answer:
        served = self._server.named(request.name).served
        refuse_other_version(request.version, served.version)
        made = message("ModelMetadataResponse")
        inputs, outputs = (
            [made.TensorMetadata(name=x.name, datatype=x.datatype, shape=x.shape) for x in tensors]
            for tensors in (inputs_of(served), outputs_of(served))
        )
        reply = made(
            name=served.name,
            versions=[served.version],
            platform=platform_of(served),
            inputs=inputs,
            outputs=outputs,
        )
        return reply, {}

    async def _infer(self, request: Any, call: Call) -> Answer:
        classifier = self._server.named(request.model_name)
        refuse_other_version(request.model_version, classifier.served.version)
        work = inference_of(
            _tensors(request),
            [(one.name, _plain(one.parameters)) for one in request.outputs],
            _plain(request.parameters),
            classifier.served,
            max_inputs=self._server.settings.max_inputs,
        )
        timeout_s = None if work.timeout_ms is None else work.timeout_ms / 1000
        deadline = min(call.deadline, deadline_in(timeout_s), key=Deadline.left_s)
        if work.rows:
            rows, timing = await classifier.classify_rows(
                work.rows, request_id=call.request_id, deadline=deadline
            )
        else:
            rows, timing = await classifier.classify(
                work.texts,
                truncate=work.truncate,
                asked=work.asked,
                raw_scores=False,
                request_id=call.request_id,
                deadline=deadline,
            )
            if classifier.after_answer is not None:
                classifier.after_answer(work.texts, rows, classifier.served.task, work.asked)
        tensors = answer_of(rows, work.outputs)
        made = message("ModelInferResponse")
        reply = made(
            model_name=classifier.served.name,
            model_version=classifier.served.version,
            id=request.id,
            outputs=[
                made.InferOutputTensor(name=one.name, datatype=one.datatype, shape=one.shape)
                for one in tensors
            ],
            raw_output_contents=[raw_of(one) for one in tensors],
        )
        return reply, {"server-timing": timing.server_timing()}

    async def _index(self, request: Any, _: Call) -> Answer:
        made = message("RepositoryIndexResponse")
        models = await index_of(self._server, only_ready=request.ready)
        return made(models=[made.ModelIndex(**one.model_dump()) for one in models]), {}

    async def _load(self, request: Any, _: Call) -> Answer:
        await load(self._server, request.model_name, request.parameters)
        return message("RepositoryModelLoadResponse")(), {}

    async def _unload(self, request: Any, _: Call) -> Answer:
        await unload(self._server, request.model_name)
        return message("RepositoryModelUnloadResponse")(), {}


def _tensors(request: Any) -> list[Tensor]:
    """The inputs, from raw bytes or from the fields of their datatypes."""
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise MalformedRequest(
            "raw_input_contents does not have the bytes of every input",
            got=f"{len(raws)} for {len(request.inputs)} inputs",
            fix="send all inputs raw, or none",
        )
    if raws:
        return [
            from_raw(one.name, one.datatype, one.shape, raw)
            for one, raw in zip(request.inputs, raws, strict=True)
        ]
    return [
        Tensor(
            name=one.name,
            datatype=one.datatype,
            shape=tuple(one.shape),
            values=list(getattr(one.contents, _field_of(one))),
        )
        for one in request.inputs
    ]


def _field_of(tensor: Any) -> str:
    """The field that has a tensor's elements.

    Raises:
        MalformedRequest: no input may have this datatype.
    """
    if tensor.datatype not in _CONTENTS:
        raise MalformedRequest(
            f"{tensor.name[:40]}: inputs are texts or whole numbers",
            got=f"datatype {tensor.datatype[:20]}",
            fix="send BYTES for texts, or INT64 for token ids",
        )
    return _CONTENTS[tensor.datatype]


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters as Python's values."""
    found = {}
    for name, one in parameters.items():
        choice = one.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(one, choice)
    return found


def _pushback(err: Exception) -> dict[str, str]:
    """When gRPC's clients may try again."""
    if isinstance(err, Overloaded):
        return {"grpc-retry-pushback-ms": str(1000 * err.retry_after_s)}
    return {}
