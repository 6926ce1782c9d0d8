"""The model repository extension: one model, which may be unloaded and loaded again.

REST and gRPC share this file.
"""

from collections.abc import Iterable

from serve.context import ServerContext, refuse_other_model
from serve.protocols.input_spec import VERSION
from serve.protocols.oip_bodies import ModelIndex
from spd_deploy.domain.errors import BadInput, MalformedRequest


def index_of(server: ServerContext, *, only_ready: bool) -> list[ModelIndex]:
    """The one model with its state; none before it was open for the first time."""
    control, ready = server.control, server.state.takes_requests
    if control.name is None or (only_ready and not ready):
        return []
    return [
        ModelIndex(
            name=control.name,
            version=VERSION,
            state="READY" if ready else "UNAVAILABLE",
            reason=control.reason,
        )
    ]


async def load(server: ServerContext, name: str, parameters: Iterable[str]) -> None:
    """Open the model again after it was unloaded; a model that is open stays as it is.

    Raises:
        UnknownModel: another model; this server has one.
        MalformedRequest: the server takes no such requests, ``parameters`` would replace the
            model's files, or it does not open.
        NotReady: the server is starting or shutting down.
    """
    _refuse_other(server, name)
    _refuse_uncontrolled(server)
    if any(key == "config" or key.startswith("file:") for key in parameters):
        raise MalformedRequest(
            "this server loads the artefact that it was started with, and no other files",
            fix="leave config and files out",
        )
    try:
        await server.control.load()
    except BadInput as err:
        raise MalformedRequest(
            "the model does not open", got=err.what, fix="read the reason in the server's log"
        ) from err


async def unload(server: ServerContext, name: str) -> None:
    """Refuse new requests, let those in flight finish, and free the model's memory.

    Raises:
        UnknownModel: another model; this server has one.
        MalformedRequest: the server takes no such requests.
        NotReady: the server is starting or shutting down.
    """
    _refuse_other(server, name)
    _refuse_uncontrolled(server)
    await server.control.unload()


def _refuse_uncontrolled(server: ServerContext) -> None:
    """Refuse to load and unload unless the operator allowed it: the server has no authentication.

    Raises:
        MalformedRequest: it is not allowed.
    """
    if not server.settings.model_control:
        raise MalformedRequest(
            "this server does not let clients load and unload its model",
            fix="start it with spd serve --model-control",
        )


def _refuse_other(server: ServerContext, name: str) -> None:
    """Refuse another model, and any before the model was open."""
    if server.control.name is None:
        server.classifier()
    refuse_other_model(name, server.control.name or "")
