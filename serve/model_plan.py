"""The plan of a server's start: its models, each with its threads, and its shadows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.model_source import ModelSource
from serve.open_model import ServedModel, open_served
from serve.repository import Repository, sources_of
from serve.settings import ServeSettings
from serve.shadow import ShadowSpec, refuse_bad_shadows
from serve.thread_budget import thread_shares
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.sessions.protocol import Device

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSettings:
    """In which runtime and on which device models run; ``threads`` is the budget of all."""

    choice: RuntimeChoice
    device: Device | None = None
    threads: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPlan:
    """The models that a server starts with, and the repository that may get others."""

    sources: Sequence[ModelSource]
    repository: Repository | None


def models_from(
    named: Iterable[tuple[str, Path]],
    repository: Path | None,
    shadows: Sequence[ShadowSpec],
    runtime: RuntimeSettings,
    settings: ServeSettings | None = None,
    *,
    say: Callable[[str], None] = _log.warning,
) -> ModelPlan:
    """The models to serve, the first one for requests that name none.

    Each model gets its share of the threads when it is opened, and is warmed up for the batches of
    the ``settings``. ``say`` gets what an operator should know of a model that was opened.

    Raises:
        SpdError: there is none, a name is there twice, a folder has no model, or a shadow names a
            model that is not there.
    """
    fixed: list[str] = []

    def names_now() -> Sequence[str]:
        """The models that share the threads at this moment."""
        return fixed if present is None else list(present.sources())

    def open_folder(folder: Path, name: str, version: str) -> ServedModel:
        served = open_served(
            folder,
            name=name,
            version=version,
            runtime_choice=runtime.choice,
            device=runtime.device,
            threads=_threads_of(name, names_now(), shadows, runtime.threads),
            settings=settings,
            say=say,
        )
        if served.card.warning is not None:
            say(served.card.warning)
        return served

    present = None if repository is None else Repository(repository, open_folder)
    sources = sources_of(named, repository, open_folder)
    fixed += [source.name or "" for source in sources]
    refuse_bad_shadows(shadows, fixed)
    return ModelPlan(sources=sources, repository=present)


def _threads_of(
    name: str, names: Sequence[str], shadows: Sequence[ShadowSpec], budget: int | None
) -> int | None:
    """Threads of a model among those that share them.

    One alone has the budget; the runtime knows its own if none is given.
    """
    if not set(names) - {name}:
        return budget
    everyone = names if name in names else [*names, name]
    others = {shadow.other for shadow in shadows}
    shares = thread_shares(budget or default_threads(), everyone, others)
    return shares[everyone.index(name)]
