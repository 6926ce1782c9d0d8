"""Opens the models at start, and replaces, closes and opens versions of them later.

A new version is opened beside the one that answers: its hashes are verified, its golden logits
compared, and it is warmed up. Then it takes the old one's place in one step. Requests that the old
version has are answered by it, and it is closed after the last one. A version that does not open
never answers; the old one stays.

Nothing is written meanwhile, so that a server that is killed at any moment starts again with what
is on the disk.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from serve.classifier import Classifier
from serve.hosted_model import HostedModel, ModelPhase, RefusedVersion
from serve.metrics import Metrics
from serve.model_source import Look, ModelVersion
from serve.model_versions import (
    forget_gone,
    refuse_incomplete,
    told_of_refusal,
    told_of_swap,
    versions_of,
    was_refused,
    worth_trying,
)
from serve.open_model import ServedModel
from serve.reload_metrics import ReloadMetrics
from serve.settings import ServeSettings
from serve.shadow import Shadows
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import BadArtefact, SpdError, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

_log = logging.getLogger(__name__)
_CLOSE_WITHIN_S = 5.0
_POLL_S = 0.01


class ModelControl:
    """The life of an app's models."""

    def __init__(
        self,
        state: ServerState,
        settings: ServeSettings,
        metrics: Metrics,
        reloads: ReloadMetrics,
        shadows: Shadows,
    ) -> None:
        """Nothing is opened before :meth:`start`."""
        self._state, self._settings, self._metrics = state, settings, metrics
        self._reloads, self._shadows = reloads, shadows
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retiring: set[Classifier] = set()

    async def start(self) -> None:
        """Open every model, and set the state to ready or failed."""
        for model in self._state.models:
            try:
                await self._open_newest(model)
            except SpdError as err:
                self._state.fail(err if len(self._state.models) == 1 else _named(err, model))
                return
        self._state.start()

    async def load(self, model: HostedModel) -> None:
        """Answer from the newest version, if its files are not those that answer already.

        Raises:
            SpdError: it does not open; what answered before still does.
            NotReady: the server is starting or shutting down.
        """
        self._state.refuse_requests()
        await self._on_its_own(self._load(model))

    async def reload(self, model: HostedModel, *, settled: Look | None = None) -> None:
        """As :meth:`load`, unless the model was unloaded; the log has what does not open.

        Where the ``settled`` versions are given, no other one is opened, and none that was refused
        with the same files before.
        """
        if model.phase is ModelPhase.UNLOADED:
            return
        try:
            await self._on_its_own(self._load(model, settled))
        except SpdError:
            return

    async def unload(self, model: HostedModel) -> None:
        """Refuse new requests, let those in flight finish, and close the model.

        Raises:
            NotReady: the server is starting or shutting down.
        """
        self._state.refuse_requests()
        await self._on_its_own(self._unload(model))

    async def remove(self, model: HostedModel) -> None:
        """Know the model no more; its requests in flight finish, and then it is closed."""
        async with model.changing:
            self._state.forget(model)
            if (classifier := model.unload()) is not None:
                self._start(self._retire(classifier))

    def give_up_stalled(self) -> None:
        """Fail the requests of every version in which a batch hangs, of those that retire too."""
        opened = [model.opened for model in self._state.models if model.opened is not None]
        for classifier in (*opened, *self._retiring):
            classifier.engine.give_up_stalled()

    async def close(self) -> None:
        """Close every version that is open."""
        while self._tasks:  # a load that ends leaves a version to retire
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self._state.models:
            if (classifier := model.opened) is not None:
                await asyncio.to_thread(classifier.close, _CLOSE_WITHIN_S)

    async def _load(self, model: HostedModel, settled: Look | None = None) -> None:
        async with model.changing:
            await self._open_newest(model, settled)

    async def _unload(self, model: HostedModel) -> None:
        async with model.changing:
            if (classifier := model.unload()) is not None:
                await self._retire(classifier)

    async def _open_newest(self, model: HostedModel, settled: Look | None = None) -> None:
        """Answer from the highest version that opens.

        Raises:
            SpdError: none opens; the error is that of the highest.
        """
        found = await versions_of(model)
        forget_gone(model, found)
        answers = model.opened is not None
        candidates = worth_trying(found, model.version if answers else None)
        errors = await self._open_first_of(model, candidates, settled)
        if model.opened is not None or not self._starting:
            for candidate, error in errors.items():  # at start the process ends with it instead
                told = told_of_refusal(model, candidate.version)
                _log.error("model %s: %s: %s", model.name or "", told, error)
        if errors and (answers or model.opened is None):
            raise next(iter(errors.values()))
        if not found and not answers:
            raise BadArtefact(
                f"model {model.name} has no version", fix="put one back, as NAME/VERSION/artefact"
            )

    async def _open_first_of(
        self, model: HostedModel, candidates: Sequence[ModelVersion], settled: Look | None
    ) -> dict[ModelVersion, SpdError]:
        """Answer from the first one that opens; returns why those before it did not."""
        errors: dict[ModelVersion, SpdError] = {}
        for candidate in candidates:
            if model.opened is not None and candidate.fingerprint == model.fingerprint:
                model.refused.pop(candidate.version, None)
                break
            if settled is not None and (
                (candidate.version, candidate.fingerprint) not in settled
                or was_refused(model, candidate.fingerprint)
            ):
                continue
            try:
                if not self._starting:
                    refuse_incomplete(candidate)
                await self._take(model, candidate)
            except SpdError as err:
                self._refuse(model, candidate, err)
                errors[candidate] = err
            else:
                break
        return errors

    @property
    def _starting(self) -> bool:
        return self._state.phase is Phase.STARTING

    async def _take(self, model: HostedModel, candidate: ModelVersion) -> None:
        """Open and verify a version, warm it up, and answer from it.

        Raises:
            SpdError: it does not open, or may not serve here.
        """
        try:
            self._swap(model, candidate, await asyncio.to_thread(candidate.open))
        except SpdError:
            raise
        except Exception as err:  # the reason must be told, whatever it is
            _log.exception("the model did not open")
            raise Unavailable(
                "the model did not open",
                got=repr(err),
                fix="read the traceback in the server's log",
            ) from err

    def _swap(self, model: HostedModel, candidate: ModelVersion, served: ServedModel) -> None:
        """Answer from this version from now on.

        Raises:
            BadInput: its labels are not those of the model that it shadows, or by which it is; or
                the server's window stride does not fit its windows.
        """
        try:
            self._shadows.refuse_other_labels(model, served)
            classifier = Classifier(served, self._settings, self._metrics)
        except SpdError:
            served.session.close()
            raise
        before, version = model.opened, model.version
        self._metrics.describe_build(served.name, build_labels(served))
        model.serve(classifier, candidate)
        if model not in self._state.models:
            _log.warning("model %s: version %s answers now", served.name, candidate.version)
            self._state.serve(model)
        if before is not None:
            self._reloads.swapped(served.name)
            _log.warning("model %s: %s", served.name, told_of_swap(version, candidate.version))
            self._start(self._retire(before))

    def _refuse(self, model: HostedModel, candidate: ModelVersion, error: SpdError) -> None:
        """Note a version that does not open, and count it."""
        model.refused[candidate.version] = RefusedVersion(
            version=candidate.version, reason=str(error), fingerprint=candidate.fingerprint
        )
        self._reloads.refused(model.name or "", error)

    async def _retire(self, classifier: Classifier) -> None:
        """Close a version once its requests are answered, or the drain timeout is over."""
        self._retiring.add(classifier)
        try:
            give_up_at = time.perf_counter() + self._settings.drain_timeout_s
            while classifier.in_use and time.perf_counter() < give_up_at:
                await asyncio.sleep(_POLL_S)
            await asyncio.to_thread(classifier.close, _CLOSE_WITHIN_S)
        finally:
            self._retiring.discard(classifier)

    async def _on_its_own(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a piece of work to its end, even where the request that asked for it is cancelled."""
        await asyncio.shield(self._start(work))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin a piece of work; :meth:`close` waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def build_labels(served: ServedModel) -> dict[str, str]:
    """The labels of the metric ``spd_build_info`` with their values."""
    card, runs = served.card, served.session.description
    return {
        "version": version_of(PACKAGE) or "unknown",
        "model": served.name,
        "model_version": served.version,
        "task": served.task.name,
        "format": card.format,
        "precision": runs.precision,
        "runtime": f"{runs.runtime} {runs.version}",
        "device": runs.device,
        "pattern": card.pattern,
        "sparsity": "" if card.sparsity is None else f"{card.sparsity:g}",
    }


def _named(error: SpdError, model: HostedModel) -> SpdError:
    """The error with the model's name before it; the class stays, since it has the exit status."""
    return type(error)(f"model {model.name}: {error.what}", got=error.got, fix=error.fix)
