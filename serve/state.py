"""Where the server is in its life: starting, ready, draining or failed.

One value that the routes, the middleware and the process around them share. Used from the event
loop's thread, and by signal handlers, which only set the phase.
"""

from enum import StrEnum

from serve.classifier import Classifier
from spd_deploy.domain.errors import NotReady, SpdError


class Phase(StrEnum):
    """One stretch of the server's life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_FIX = {
    Phase.STARTING: "try again in a moment; /readyz says when",
    Phase.DRAINING: "send the request to another server",
    Phase.FAILED: "see the server's log",
}


class ServerState:
    """The phase, the model once there is one, and how many requests are being answered."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.error: SpdError | None = None
        self.in_flight = 0
        self._classifier: Classifier | None = None

    @property
    def opened(self) -> Classifier | None:
        """The model, whatever the phase; None where it was never opened."""
        return self._classifier

    def start(self, classifier: Classifier) -> None:
        """The model is open; requests are taken from now on, unless it was told to stop."""
        self._classifier = classifier
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def fail(self, error: SpdError) -> None:
        """The model did not open."""
        self.error = error
        self.phase = Phase.FAILED

    def drain(self) -> None:
        """Take no more requests; those in flight are answered."""
        if self.phase is not Phase.FAILED:
            self.phase = Phase.DRAINING

    def refuse_dead(self) -> None:
        """Refuse to say that the server is alive where only a new process would help.

        Raises:
            NotReady: the engine has ended, or a batch does not come back from the model.
        """
        if self._classifier is None:
            return
        engine = self._classifier.engine
        if not engine.alive:
            raise NotReady("the engine has ended", fix="start the server again")
        if engine.health.stalled:
            raise NotReady("the model hangs", fix="start the server again")

    def classifier(self) -> Classifier:
        """The model, for a request.

        Raises:
            NotReady: no model yet, none any more, or one that does not answer.
        """
        if self._classifier is None or self.phase is not Phase.READY:
            raise NotReady(f"the server is {self.phase}", fix=_FIX.get(self.phase, ""))
        self.refuse_dead()
        if self._classifier.engine.health.failing:
            raise NotReady("the model fails on every input", fix="see the server's log")
        return self._classifier
