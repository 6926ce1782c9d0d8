"""A model as the server has it: a name, the version that answers, and those that were refused.

It is used from the event loop's thread alone. Which version answers changes in one step, so that
every request has one version, whole.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from serve.classifier import AfterAnswer, Classifier
from serve.model_source import ONLY_VERSION, Fingerprint, ModelSource, ModelVersion
from spd_deploy.domain.errors import NotReady, Overloaded


class ModelPhase(StrEnum):
    """The phase of a model; the text completes "the model is ..."."""

    OPENING = "opening"
    READY = "ready"
    UNLOADED = "unloaded"


_FIX = {
    ModelPhase.OPENING: "try again when /readyz answers 200",
    ModelPhase.UNLOADED: "load the model again, or send the request to another server",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedVersion:
    """A version that did not open: why, and which files it had."""

    version: str
    reason: str
    fingerprint: Fingerprint | None


class HostedModel:
    """A model's name with the version that answers."""

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.name: str | None = source.name
        self.version = ONLY_VERSION
        self.fingerprint: Fingerprint | None = None
        self.phase = ModelPhase.OPENING
        self.refused: dict[str, RefusedVersion] = {}
        self.after_answer: AfterAnswer | None = None
        self.changing = asyncio.Lock()  # held while a version is opened or closed
        self._classifier: Classifier | None = None

    @property
    def opened(self) -> Classifier | None:
        """The version that answers; None where none is open."""
        return self._classifier

    @property
    def ready(self) -> bool:
        """Whether the model takes requests."""
        try:
            self.refuse_unready()
        except NotReady:
            return False
        return True

    def serve(self, classifier: Classifier, candidate: ModelVersion) -> None:
        """Answer from this version from now on."""
        classifier.after_answer = self.after_answer
        self._classifier = classifier
        self.name = classifier.served.name
        self.version, self.fingerprint = candidate.version, candidate.fingerprint
        self.phase = ModelPhase.READY
        self.refused.pop(candidate.version, None)

    def reopen(self, source: ModelSource) -> None:
        """Begin anew with a source, as a model that was never open."""
        self.source, self.phase = source, ModelPhase.OPENING
        self.version, self.fingerprint = ONLY_VERSION, None
        self.refused.clear()

    def unload(self) -> Classifier | None:
        """Answer nothing from now on; returns the version that answered."""
        classifier, self._classifier = self._classifier, None
        self.phase = ModelPhase.UNLOADED
        return classifier

    def refuse_dead(self) -> None:
        """Refuse where only a restart helps.

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

    def refuse_unready(self) -> None:
        """Refuse where no new request would be answered.

        Raises:
            NotReady: no version is open, or it hangs or fails on every input.
        """
        self._refuse_failing(self._open_version())

    def classifier(self) -> Classifier:
        """The version that answers, for a new request.

        Raises:
            NotReady: none is open, or it hangs or fails on every input.
        """
        classifier = self._open_version()
        self._refuse_failing(classifier)
        return classifier

    def _open_version(self) -> Classifier:
        if self._classifier is None:
            raise NotReady(f"the model is {self.phase}", fix=_FIX.get(self.phase, ""))
        return self._classifier

    def _refuse_failing(self, classifier: Classifier) -> None:
        self.refuse_dead()
        if classifier.engine.health.failing:
            raise NotReady(
                "the model fails on every input", fix="read the reason in the server's log"
            )


def refuse_full(models: Sequence[HostedModel]) -> None:
    """Refuse a request for one of these models, where the queue of each is full.

    Raises:
        Overloaded: none has room for a single text; the error of the one that has room first.
    """
    refusals = []
    for classifier in (model.opened for model in models):
        if classifier is None:
            continue
        try:
            classifier.admission.refuse_full()
        except Overloaded as err:
            refusals.append(err)
        else:
            return
    if refusals:
        raise min(refusals, key=lambda err: err.retry_after_s)
