"""Opens the model at start, and closes and opens it again where a client asks for that."""

import asyncio
import logging
import time
from collections.abc import Callable

from serve.classifier import Classifier
from serve.metrics import Metrics
from serve.open_model import ServedModel
from serve.settings import ServeSettings
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import NotReady, SpdError, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

_log = logging.getLogger(__name__)
_CLOSE_WITHIN_S = 5.0
_POLL_S = 0.01


class ModelControl:
    """The life of an app's one model."""

    def __init__(
        self,
        open_model: Callable[[], ServedModel],
        settings: ServeSettings,
        state: ServerState,
        metrics: Metrics,
    ) -> None:
        """``open_model`` opens and self-tests the model; it runs in a thread."""
        self._open_model, self._settings = open_model, settings
        self._state, self._metrics = state, metrics
        self._changing = asyncio.Lock()
        self.name: str | None = None  # known once the model was open
        self.reason = ""  # why it is not open

    async def start(self) -> None:
        """Open the model, and set the state to ready or failed."""
        try:
            await self._open()
        except SpdError as err:
            self._state.fail(err)

    async def load(self) -> None:
        """Open the model if it is not open.

        Raises:
            SpdError: it does not open; the server goes on without it.
            NotReady: the server is starting or shutting down.
        """
        async with self._changing:
            if self._state.phase is Phase.UNLOADED:
                await self._open()
            elif self._state.phase is not Phase.READY:
                raise NotReady(f"the server is {self._state.phase}", fix="try again later")

    async def unload(self) -> None:
        """Refuse new requests, let those in flight finish, and close the model.

        Raises:
            NotReady: the server is starting or shutting down.
        """
        async with self._changing:
            if self._state.phase is Phase.UNLOADED:
                return
            if self._state.phase is not Phase.READY:
                raise NotReady(f"the server is {self._state.phase}", fix="try again later")
            self._state.phase = Phase.UNLOADED
            await self._close_when_idle()
            self.reason = "unloaded"

    async def close(self) -> None:
        """Close the model, if it is open."""
        if (classifier := self._state.opened) is not None:
            await asyncio.to_thread(classifier.close, _CLOSE_WITHIN_S)

    async def _open(self) -> None:
        """Open the model and take requests.

        Raises:
            SpdError: it does not open.
        """
        try:
            served = await asyncio.to_thread(self._open_model)
            self._metrics.describe_build(build_labels(served))
            self._state.start(Classifier(served, self._settings, self._metrics))
            self.name, self.reason = served.name, ""
        except SpdError as err:
            self.reason = str(err)
            raise
        except Exception as err:  # the process must end with any error
            _log.exception("the model did not open")
            self.reason = repr(err)
            raise Unavailable(
                "the model did not open",
                got=repr(err),
                fix="read the traceback in the server's log",
            ) from err

    async def _close_when_idle(self) -> None:
        """Close the model once its requests are answered, or the drain timeout is over."""
        classifier = self._state.opened
        if classifier is None:
            return
        give_up_at = time.perf_counter() + self._settings.drain_timeout_s
        while classifier.admission.held.items and time.perf_counter() < give_up_at:
            await asyncio.sleep(_POLL_S)
        await self.close()
        self._state.forget()


def build_labels(served: ServedModel) -> dict[str, str]:
    """The labels of the metric ``spd_build_info`` with their values."""
    card, runs = served.card, served.session.description
    return {
        "version": version_of(PACKAGE) or "unknown",
        "model": served.name,
        "task": served.task.name,
        "format": card.format,
        "precision": runs.precision,
        "runtime": f"{runs.runtime} {runs.version}",
        "device": runs.device,
        "pattern": card.pattern,
        "sparsity": "" if card.sparsity is None else f"{card.sparsity:g}",
    }
