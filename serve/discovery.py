"""Finds the models that are added to the repository while the server runs, and lets go of others.

A model that was found is not served before one of its versions is open and verified; until then it
is not there for requests, and does not count for ``/readyz``. A model whose folder is gone is let
go once two looks in a row have missed it. Where the whole repository is empty or cannot be read,
as when its volume is not mounted, every model stays. The last model always stays.
"""

import asyncio
import logging
from collections.abc import Mapping

from serve.hosted_model import HostedModel
from serve.log_rarely import Once
from serve.model_control import ModelControl
from serve.model_source import ModelSource
from serve.reload_metrics import ReloadMetrics
from serve.repository import Repository
from serve.state import ServerState
from spd_deploy.domain.errors import SpdError

_log = logging.getLogger(__name__)


class Discovery:
    """The models of a server whose repository may get others."""

    def __init__(
        self,
        state: ServerState,
        control: ModelControl,
        reloads: ReloadMetrics,
        repository: Repository,
    ) -> None:
        self._state, self._control, self._reloads = state, control, reloads
        self._repository = repository
        # A model that comes back is the one that its shadow knows.
        self._known = {model.name: model for model in state.models}
        self._missed: frozenset[str | None] = frozenset()
        self._once = Once(_log)
        self._looking = asyncio.Lock()

    async def look(self, *, certain: bool = False) -> None:
        """Note models that are new, and let go of those that are gone.

        A model that is missed for the first time is kept, unless the look is ``certain``.
        """
        async with self._looking:
            if not (there := await self._models()):
                return
            self._note_new(there)
            missed = frozenset(one.name for one in self._models_here() if one.name not in there)
            for model in self._models_here():
                if model.name in missed and (certain or model.name in self._missed):
                    await self._let_go(model)
            self._missed = missed

    async def note_new(self) -> None:
        """Note models that are new."""
        async with self._looking:
            self._note_new(await self._models())

    async def _models(self) -> Mapping[str, ModelSource]:
        """The models in the repository now; none where it cannot be read."""
        try:
            there = await asyncio.to_thread(self._repository.sources)
        except SpdError as err:
            self._once.warning(f"{err}; the models stay as they are")
            return {}
        if not there:
            self._once.warning("the model repository is empty; the models stay as they are")
        return there

    def _models_here(self) -> tuple[HostedModel, ...]:
        return (*self._state.models, *self._state.found)

    def _note_new(self, there: Mapping[str, ModelSource]) -> None:
        """Remember each model that is not known, so that it is opened when it is complete."""
        names = {(one.name or "").casefold(): one.name for one in self._models_here()}
        for name, source in there.items():
            other = names.setdefault(name.casefold(), name)
            if other != name:
                self._once.warning(f"model {name} is passed over: its name is {other} but for case")
            elif all(one.name != name for one in self._models_here()):
                model = self._known.setdefault(name, HostedModel(source))
                model.reopen(source)
                self._state.found = (*self._state.found, model)
                self._reloads.watch(name)

    async def _let_go(self, model: HostedModel) -> None:
        """Answer no more requests for a model; the last one stays."""
        if self._state.models == (model,):
            self._once.warning(
                f"the folder of model {model.name} is gone; it stays, since it is the last"
            )
            return
        if model in self._state.models:
            _log.warning("model %s: its folder is gone, and it is unloaded", model.name)
        await self._control.remove(model)
