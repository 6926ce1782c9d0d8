"""The model repository extension: the models with their versions, unloaded and loaded on request.

REST and gRPC share this file.
"""

from collections.abc import Iterable

from serve.context import ServerContext
from serve.hosted_model import HostedModel, ModelPhase
from serve.protocols.oip.oip_bodies import ModelIndex
from serve.state import Phase
from spd_deploy.domain.errors import BadInput, MalformedRequest, Unavailable


async def index_of(server: ServerContext, *, only_ready: bool) -> list[ModelIndex]:
    """Each model with the state of its versions; at start none before it is open.

    Models of the repository that are not open are listed too, with the reason.
    """
    if server.discovery is not None and not only_ready:
        await server.discovery.note_new()
    serving = server.state.phase is Phase.READY
    return [
        one
        for model in server.state.models
        if model.phase is not ModelPhase.OPENING
        for one in _versions_of(model, ready=serving and model.ready)
        if one.state == "READY" or not only_ready
    ] + [one for model in server.state.found if not only_ready for one in _not_open(model)]


def _not_open(model: HostedModel) -> list[ModelIndex]:
    """The versions of a model that were refused; one without a number where none was tried."""
    name, versions = model.name or "", sorted(model.refused, key=int)
    return [
        ModelIndex(name=name, version=v, state="UNAVAILABLE", reason=model.refused[v].reason)
        for v in versions
    ] or [ModelIndex(name=name, version="", state="UNAVAILABLE", reason="not loaded")]


def _versions_of(model: HostedModel, *, ready: bool) -> list[ModelIndex]:
    """The version that answers, or did, and those that were refused, each with the reason."""
    own = model.refused.get(model.version)
    if own is not None:
        reason = f"the files that are there now were refused: {own.reason}"
    else:
        reason = "unloaded" if model.phase is ModelPhase.UNLOADED else ""
    name = model.name or ""
    first = ModelIndex(
        name=name,
        version=model.version,
        state="READY" if ready else "UNAVAILABLE",
        reason=reason,
    )
    others = sorted((v for v in model.refused if v != model.version), key=int)
    return [
        first,
        *(
            ModelIndex(name=name, version=v, state="UNAVAILABLE", reason=model.refused[v].reason)
            for v in others
        ),
    ]


async def load(server: ServerContext, name: str, parameters: Iterable[str]) -> None:
    """Answer from the model's newest version; what answers stays where nothing changed.

    Raises:
        UnknownModel: there is no such model, nor one in the repository.
        MalformedRequest: the server takes no such requests, ``parameters`` would replace the
            model's files, or it does not open.
        NotReady: the server is starting or shutting down.
    """
    model = await _model(server, name)
    if any(key == "config" or key.startswith("file:") for key in parameters):
        raise MalformedRequest(
            "this server loads the artefacts of its folders, and no other files",
            fix="leave config and files out",
        )
    try:
        await server.control.load(model)
    except (BadInput, Unavailable) as err:
        raise MalformedRequest(
            "the model does not open", got=err.what, fix="read the reason in the server's log"
        ) from err


async def unload(server: ServerContext, name: str) -> None:
    """Refuse new requests, let those in flight finish, and free the model's memory.

    Raises:
        UnknownModel: there is no such model, nor one in the repository.
        MalformedRequest: the server takes no such requests.
        NotReady: the server is starting or shutting down.
    """
    await server.control.unload(await _model(server, name))


async def _model(server: ServerContext, name: str) -> HostedModel:
    """The model that a client wants to control, if it may: the server has no authentication.

    Raises:
        UnknownModel: the server has no such model.
        MalformedRequest: it is not allowed.
        NotReady: the server is starting or shutting down.
    """
    server.state.refuse_requests()
    if server.discovery is not None and server.settings.model_control:
        await server.discovery.note_new()
    model = server.state.known(name)
    if not server.settings.model_control:
        raise MalformedRequest(
            "this server does not let clients load and unload its model",
            fix="start it with spd serve --model-control",
        )
    return model
