"""Opens a model for serving: by ``sessions.open``, then warmed up, with its model card."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve.model_card import ModelCard, card_of
from serve.settings import ServeSettings
from serve.warm_up import warm_up
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer
from spd_deploy.sessions.open import open_path
from spd_deploy.sessions.protocol import Device, Session

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A warm session with its tokenizer, its task and its model card."""

    name: str
    session: Session
    tokenizer: Tokenizer
    task: Task
    card: ModelCard
    version: str = "1"

    @property
    def takes(self) -> str:
        """``single`` or ``pair`` texts, or ``either`` where the model does not say."""
        if self.task.name == "unknown":
            return "either"
        return "pair" if self.task.has_pair else "single"

    @property
    def takes_pairs(self) -> bool:
        """Whether a pair of texts may come."""
        return self.takes != "single"

    @property
    def reranks(self) -> bool:
        """Whether it gives a pair one score, as a cross-encoder does."""
        return self.takes_pairs and self.task.outputs == 1


def open_served(
    path: Path,
    *,
    name: str | None = None,
    version: str = "1",
    runtime_choice: RuntimeChoice | None = None,
    device: Device | None = None,
    threads: int | None = None,
    settings: ServeSettings | None = None,
    say: Callable[[str], None] = _log.info,
) -> ServedModel:
    """Open an artefact or a checkpoint (:func:`sessions.open.open_path`) and warm it up.

    Its name is that of the folder, unless ``name`` is another. The batches of the ``settings`` are
    those that it is warmed up for. ``say`` gets what is to be told of that.

    Raises:
        SpdError: the path holds neither, the model is damaged, or it does not run here.
    """
    opened = open_path(path, runtime_choice=runtime_choice, device=device, threads=threads)
    try:
        served = ServedModel(
            name=name or path.resolve().name,
            version=version,
            session=opened.session,
            tokenizer=opened.tokenizer,
            task=opened.task,
            card=card_of(opened.source, self_test=opened.self_test),
        )
        limits = settings or ServeSettings()
        warm_up(
            served.name,
            served.session,
            served.tokenizer,
            served.task,
            max_rows=limits.max_batch_rows,
            max_batch_tokens=limits.max_batch_tokens,
            timeout_s=limits.warm_up_timeout_s,
            say=say,
        )
    except BaseException:
        opened.session.close()
        raise
    return served
