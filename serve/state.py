"""The server's state: starting, ready, draining or failed; and its models.

The routes, the middleware and the process share one :class:`ServerState`. It is used from the event
loop's thread, and by signal handlers, which only set the phase or ask for a reload.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from serve.classifier import Classifier
from serve.hosted_model import HostedModel, ModelPhase
from spd_deploy.domain.errors import NotReady, SpdError, UnknownModel

_MAX_NAME = 60
_MAX_LISTED = 5


class Phase(StrEnum):
    """The phases in their order; FAILED replaces READY where a model does not open."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_FIX = {
    Phase.STARTING: "try again when /readyz answers 200",
    Phase.DRAINING: "send the request to another server",
    Phase.FAILED: "read the reason in the server's log",
}


class ServerState:
    """The phase, the models, and the number of requests in flight."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.error: SpdError | None = None
        self.in_flight = 0
        self.grpc_address = ""  # where the gRPC server listens, if there is one
        self.on_failure: Callable[[SpdError], None] = lambda _: None
        self.models: tuple[HostedModel, ...] = ()
        self.found: tuple[HostedModel, ...] = ()  # in the repository, and not open yet
        self.ask_for_reload: Callable[[], None] = lambda: None  # any thread may call it

    @property
    def opened(self) -> Classifier | None:
        """The first model in any phase; None until it is open."""
        return self.models[0].opened if self.models else None

    @property
    def takes_requests(self) -> bool:
        """Whether the server is ready."""
        try:
            self.refuse_unready()
        except NotReady:
            return False
        return True

    def start(self) -> None:
        """Take requests, unless the server drains already."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def fail(self, error: SpdError) -> None:
        """Record why a model did not open; the process then ends with this error."""
        self.error = error
        self.phase = Phase.FAILED
        self.on_failure(error)

    def drain(self) -> None:
        """Refuse new requests; requests in flight are still answered."""
        if self.phase is not Phase.FAILED:
            self.phase = Phase.DRAINING

    def refuse_dead(self) -> None:
        """Refuse where only a restart helps; ``/livez`` answers 503 then.

        Raises:
            NotReady: the thread of an engine has ended, or a batch hangs in a model.
        """
        for model in self.models:
            model.refuse_dead()

    def candidates(self, name: str | None) -> Sequence[HostedModel]:
        """The models that a request may be for: those of a name; all where the path has none."""
        return self.models if name is None else [one for one in self.models if one.name == name]

    def refuse_requests(self) -> None:
        """Refuse new requests, whatever their model.

        Raises:
            NotReady: the server is not in phase READY.
        """
        if self.phase is not Phase.READY:
            raise NotReady(f"the server is {self.phase}", fix=_FIX.get(self.phase, ""))

    def refuse_unready(self) -> None:
        """Refuse unless every model answers; ``/readyz`` answers 503 then.

        A model that was unloaded on purpose does not count, as in Triton, while another is there.

        Raises:
            NotReady: the server or one of its models takes no requests.
        """
        self.refuse_requests()
        loaded = [model for model in self.models if model.phase is not ModelPhase.UNLOADED]
        for model in loaded or self.models:
            model.refuse_unready()

    def model(self, name: str | None = None) -> HostedModel:
        """The model of this name; the first one where a request names none.

        Raises:
            UnknownModel: there is no such model.
        """
        if name is None:
            return self.models[0]
        for model in self.models:
            if model.name == name:
                return model
        names = [one.name or "" for one in self.models]
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        raise UnknownModel(
            "no such model",
            got=name.encode("ascii", "backslashreplace").decode("ascii")[:_MAX_NAME],
            fix=f"this server has {', '.join(names[:_MAX_LISTED])}{more}",
        )

    def known(self, name: str) -> HostedModel:
        """The model of this name, also one that was found and is not open.

        Raises:
            UnknownModel: there is no such model.
        """
        found = next((model for model in self.found if model.name == name), None)
        return self.model(name) if found is None else found

    def serve(self, model: HostedModel) -> None:
        """Take requests for a model from now on; those that name none keep theirs."""
        self.found = tuple(one for one in self.found if one is not model)
        if model not in self.models:
            self.models = (*self.models, model)

    def forget(self, model: HostedModel) -> None:
        """Know no such model from now on."""
        self.models = tuple(one for one in self.models if one is not model)
        self.found = tuple(one for one in self.found if one is not model)

    def classifier(self, name: str | None = None) -> Classifier:
        """The model of this name, or the first one, for a new request.

        Raises:
            NotReady: the server is not in phase READY, or the model hangs or fails on every input.
            UnknownModel: there is no such model.
        """
        self.refuse_requests()
        return self.model(name).classifier()
