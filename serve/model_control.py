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
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from serve.classifier import Classifier
from serve.hosted_model import HostedModel, ModelPhase, RefusedVersion
from serve.model_source import Fingerprint, Look, ModelVersion
from serve.open_model import ServedModel
from serve.reload_metrics import ReloadMetrics
from serve.settings import ServeSettings
from serve.shadow import Shadows
from serve.state import ServerState
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
        metrics: ReloadMetrics,
        shadows: Shadows,
    ) -> None:
        """Nothing is opened before :meth:`start`."""
        self._state, self._settings, self._metrics = state, settings, metrics
        self._shadows = shadows
        self._changing = {id(model): asyncio.Lock() for model in state.models}
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
        """As :meth:`load` for a model that answers; what does not open is told by the log.

        Where the ``settled`` versions are given, no other one is opened, and none that was refused
        with the same files before.
        """
        if model.phase is not ModelPhase.READY:
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

    def give_up_stalled(self) -> None:
        """Fail the requests of every version in which a batch hangs, of those that retire too."""
        opened = [model.opened for model in self._state.models if model.opened is not None]
        for classifier in (*opened, *self._retiring):
            classifier.engine.give_up_stalled()

    async def close(self) -> None:
        """Close every version that is open."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self._state.models:
            if (classifier := model.opened) is not None:
                await asyncio.to_thread(classifier.close, _CLOSE_WITHIN_S)

    async def _load(self, model: HostedModel, settled: Look | None = None) -> None:
        async with self._changing[id(model)]:
            await self._open_newest(model, settled)

    async def _unload(self, model: HostedModel) -> None:
        async with self._changing[id(model)]:
            if (classifier := model.unload()) is not None:
                await self._retire(classifier)

    async def _open_newest(self, model: HostedModel, settled: Look | None = None) -> None:
        """Answer from the highest version that opens.

        Raises:
            SpdError: none opens; the error is that of the highest.
        """
        found = await versions_of(model)
        _forget_gone(model, found)
        answers = model.opened is not None
        candidates = worth_trying(found, model.version if answers else None)
        errors = await self._open_first_of(model, candidates, settled)
        if model.opened is not None or model.phase is ModelPhase.UNLOADED:
            _log_refused(model, errors)  # at start the process ends with the error instead
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
        errors = {}
        for candidate in candidates:
            if model.opened is not None and candidate.fingerprint == model.fingerprint:
                model.refused.pop(candidate.version, None)
                break
            if settled is not None and (
                (candidate.version, candidate.fingerprint) not in settled
                or _was_refused(model, candidate.fingerprint)
            ):
                continue
            try:
                if model.opened is not None:
                    refuse_incomplete(candidate)
                self._swap(model, candidate, await self._opened(candidate))
            except SpdError as err:
                self._refuse(model, candidate, err)
                errors[candidate] = err
            else:
                break
        return errors

    async def _opened(self, candidate: ModelVersion) -> ServedModel:
        """A version, open, verified and warm.

        Raises:
            SpdError: it does not open, or may not serve here.
        """
        try:
            served = await asyncio.to_thread(candidate.open)
        except SpdError:
            raise
        except Exception as err:  # the reason must be told, whatever it is
            _log.exception("the model did not open")
            raise Unavailable(
                "the model did not open",
                got=repr(err),
                fix="read the traceback in the server's log",
            ) from err
        return served

    def _swap(self, model: HostedModel, candidate: ModelVersion, served: ServedModel) -> None:
        """Answer from this version from now on.

        Raises:
            BadInput: its labels are not those of the model that it shadows, or by which it is.
        """
        try:
            self._shadows.refuse_other_labels(model, served)
        except SpdError:
            served.session.close()
            raise
        before, version = model.opened, model.version
        model.metrics.describe_build(build_labels(served))
        model.serve(Classifier(served, self._settings, model.metrics), candidate)
        if before is not None:
            self._metrics.swapped(served.name)
            was = "the same number" if version == candidate.version else f"version {version}"
            _log.warning(
                "model %s: version %s answers now, in the place of %s",
                served.name,
                candidate.version,
                was,
            )
            self._start(self._retire(before))

    def _refuse(self, model: HostedModel, candidate: ModelVersion, error: SpdError) -> None:
        """Note a version that does not open, and count it."""
        model.refused[candidate.version] = RefusedVersion(
            version=candidate.version, reason=str(error), fingerprint=candidate.fingerprint
        )
        self._metrics.refused(model.name or "", error)

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


async def versions_of(model: HostedModel) -> Sequence[ModelVersion]:
    """The versions that there are now, highest first.

    Raises:
        Unavailable: the folder cannot be read.
    """
    try:
        return await asyncio.to_thread(model.source.candidates)
    except (OSError, RuntimeError) as err:  # such as a circle of links
        raise Unavailable(
            f"the folder of model {model.name} cannot be read", got=err, fix="check the folder"
        ) from err


def refuse_incomplete(candidate: ModelVersion) -> None:
    """Refuse a version that lacks a file, before anything of it is opened.

    Raises:
        BadArtefact: with the file that is missing.
    """
    if candidate.lack:
        raise BadArtefact(
            f"version {candidate.version} is not complete",
            got=candidate.lack,
            fix="load it again when it is",
        )


def worth_trying(found: Sequence[ModelVersion], serving: str | None) -> Sequence[ModelVersion]:
    """The candidates that may take the place of the version that answers, highest first.

    No version goes back to a lower one while its own folder is still there.
    """
    numbers = [candidate.version for candidate in found]
    return found[: numbers.index(serving) + 1] if serving in numbers else found


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


def _log_refused(model: HostedModel, errors: Mapping[ModelVersion, SpdError]) -> None:
    """Log each version that was refused, and what answers in its place."""
    answers = f"version {model.version} answers" if model.opened else "the model does not answer"
    for candidate, error in errors.items():
        _log.error(
            "model %s: version %s is refused, and %s: %s",
            model.name or "",
            candidate.version,
            answers,
            error,
        )


def _named(error: SpdError, model: HostedModel) -> SpdError:
    """The error with the model's name before it; the class stays, since it has the exit status."""
    return type(error)(f"model {model.name}: {error.what}", got=error.got, fix=error.fix)


def _was_refused(model: HostedModel, fingerprint: Fingerprint | None) -> bool:
    """Whether these very files were refused before."""
    return any(one.fingerprint == fingerprint for one in model.refused.values())


def _forget_gone(model: HostedModel, found: Sequence[ModelVersion]) -> None:
    """Forget the refused versions that are not on the disk any more."""
    there = {candidate.version for candidate in found}
    for version in [version for version in model.refused if version not in there]:
        del model.refused[version]
