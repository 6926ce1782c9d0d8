"""What a server is started with: its models, each with its threads, and its shadows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.model_source import ModelSource
from serve.open_model import ServedModel, open_served
from serve.repository import sources_of
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


def models_from(
    named: Iterable[tuple[str, Path]],
    repository: Path | None,
    shadows: Sequence[ShadowSpec],
    runtime: RuntimeSettings,
    *,
    say: Callable[[str], None] = _log.warning,
) -> list[ModelSource]:
    """The models to serve, the first one for requests that name none.

    ``say`` gets what an operator should know of a model that was opened.

    Raises:
        SpdError: there is none, a name is there twice, a folder has no model, or a shadow names a
            model that is not there.
    """
    threads: dict[str, int | None] = {}

    def open_folder(folder: Path, name: str, version: str) -> ServedModel:
        served = open_served(
            folder,
            name=name,
            version=version,
            runtime_choice=runtime.choice,
            device=runtime.device,
            threads=threads[name],
        )
        if served.card.warning is not None:
            say(served.card.warning)
        return served

    sources = sources_of(named, repository, open_folder)
    names = [source.name or "" for source in sources]
    refuse_bad_shadows(shadows, names)
    threads.update(_threads_of(names, shadows, runtime.threads))
    return sources


def _threads_of(
    names: Sequence[str], shadows: Sequence[ShadowSpec], budget: int | None
) -> dict[str, int | None]:
    """Threads of each model; one alone has the budget, which its runtime knows if none is given."""
    if len(names) == 1:
        return {names[0]: budget}
    others = {shadow.other for shadow in shadows}
    shares = thread_shares(budget or default_threads(), names, others)
    return dict(zip(names, shares, strict=True))
