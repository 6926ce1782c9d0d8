"""Watches the models' folders: replaces a model whose files have changed, and finds new models.

The folders are read once a second: that also sees what file systems over a network change, where
the kernel tells nothing. A change counts once two looks in a row have found the same files, so a
folder that is still being copied is left alone, and a Kubernetes volume whose link is swapped is
one change. A version that lacks a file of its manifest is not opened either. A copy that stands
still in the middle of its last file is found by its hash: it is refused, and tried again when its
files change.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from serve.discovery import Discovery
from serve.hosted_model import HostedModel, ModelPhase
from serve.log_rarely import Once
from serve.model_control import ModelControl
from serve.model_source import Look, ModelVersion
from serve.model_versions import versions_of
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import SpdError

LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """The last look at a model, and the last one that was acted upon."""

    seen: Look
    done: Look


def look_of(found: Sequence[ModelVersion]) -> Look:
    """The complete versions with their files."""
    return tuple((one.version, one.fingerprint) for one in found if not one.lack)


def step(watched: Watched, now: Look) -> tuple[Watched, bool]:
    """The state after a look, and whether to act: a change that two looks have seen alike."""
    settled = now == watched.seen and now != watched.done
    return Watched(seen=now, done=now if settled else watched.done), settled


class Watcher:
    """Watches every model of a server."""

    def __init__(
        self, state: ServerState, control: ModelControl, discovery: Discovery | None
    ) -> None:
        """``discovery`` finds models that are added; None where none can be."""
        self._state, self._control, self._discovery = state, control, discovery
        self._watched: dict[int, Watched] = {}
        self._once = Once(_log)

    async def run(self) -> None:
        """Look at every model, again and again, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._state.phase is Phase.READY:
                if self._discovery is not None:
                    await self._discovery.look()
                models = (*self._state.models, *self._state.found)
                self._forget_others(models)
                for model in models:
                    await self._look_at(model)

    def _forget_others(self, models: Sequence[HostedModel]) -> None:
        """Forget what was seen of models that are gone; one that comes back begins anew."""
        here = {id(model) for model in models}
        self._watched = {key: seen for key, seen in self._watched.items() if key in here}

    async def _look_at(self, model: HostedModel) -> None:
        """Replace the model if its files have changed, and stay so."""
        if model.phase is ModelPhase.UNLOADED:
            return
        try:
            found = await versions_of(model)
        except SpdError as err:
            self._once.warning(str(err))
            return
        self._tell_incomplete(model, found)
        now = look_of(found)
        key = id(model)
        if key not in self._watched:  # what answers has been verified at start
            answering = ((model.version, model.fingerprint),) if model.opened else ()
            self._watched[key] = Watched(seen=answering, done=answering)
        self._watched[key], settled = step(self._watched[key], now)
        if settled:
            await self._control.reload(model, settled=now)

    def _tell_incomplete(self, model: HostedModel, found: Sequence[ModelVersion]) -> None:
        """Log each version that is not complete, once."""
        for one in found:
            if one.lack:
                self._once.warning(
                    f"model {model.name}: version {one.version} is not complete yet: {one.lack}"
                )
