"""The server's state: starting, ready, unloaded, draining or failed; and the model, if open.

The routes, the middleware and the process share one :class:`ServerState`. It is used from the event
loop's thread, and by signal handlers, which only set the phase.
"""

from enum import StrEnum

from serve.classifier import Classifier
from spd_deploy.domain.errors import NotReady, SpdError


class Phase(StrEnum):
    """The phases in their order; FAILED replaces READY where the model does not open.

    UNLOADED is between two times of READY: a client asked to close the model.
    """

    STARTING = "starting"
    READY = "ready"
    UNLOADED = "without its model, which was unloaded"
    DRAINING = "draining"
    FAILED = "failed"


_FIX = {
    Phase.STARTING: "try again when /readyz answers 200",
    Phase.UNLOADED: "load the model again, or send the request to another server",
    Phase.DRAINING: "send the request to another server",
    Phase.FAILED: "read the reason in the server's log",
}


class ServerState:
    """The phase, the open model, and the number of requests in flight."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.error: SpdError | None = None
        self.in_flight = 0
        self.grpc_address = ""  # where the gRPC server listens, if there is one
        self._classifier: Classifier | None = None

    @property
    def opened(self) -> Classifier | None:
        """The model in any phase; None until it is open."""
        return self._classifier

    @property
    def takes_requests(self) -> bool:
        """Whether :meth:`classifier` gives the model."""
        try:
            self.classifier()
        except NotReady:
            return False
        return True

    def start(self, classifier: Classifier) -> None:
        """Take requests with this model, unless the server drains already."""
        self._classifier = classifier
        if self.phase in (Phase.STARTING, Phase.UNLOADED):
            self.phase = Phase.READY

    def forget(self) -> None:
        """Drop the model after it is closed."""
        self._classifier = None

    def fail(self, error: SpdError) -> None:
        """Record why the model did not open; the process then ends with this error."""
        self.error = error
        self.phase = Phase.FAILED

    def drain(self) -> None:
        """Refuse new requests; requests in flight are still answered."""
        if self.phase is not Phase.FAILED:
            self.phase = Phase.DRAINING

    def refuse_dead(self) -> None:
        """Refuse where only a restart helps; ``/livez`` answers 503 then.

        Raises:
            NotReady: the engine's thread has ended, or a batch hangs in the model.
        """
        if self._classifier is None:
            return
        engine = self._classifier.engine
        if not engine.alive:
            raise NotReady("the engine's thread has ended", fix="restart the server")
        if hang := engine.health.hang:
            raise NotReady(hang, fix="restart the server")

    def refuse_full(self) -> None:
        """Refuse where the queue has no room for a single text; nothing of a request is read.

        Raises:
            Overloaded: the queue is full.
        """
        if self._classifier is not None and self.phase is Phase.READY:
            self._classifier.admission.refuse_full()

    def classifier(self) -> Classifier:
        """The model for a new request.

        Raises:
            NotReady: the server is not in phase READY, or the model hangs or fails on every input.
        """
        if self._classifier is None or self.phase is not Phase.READY:
            raise NotReady(f"the server is {self.phase}", fix=_FIX.get(self.phase, ""))
        self.refuse_dead()
        if self._classifier.engine.health.failing:
            raise NotReady(
                "the model fails on every input", fix="read the reason in the server's log"
            )
        return self._classifier
