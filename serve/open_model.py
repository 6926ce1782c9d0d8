"""Opens a model for serving: by ``sessions.open``, then warmed up, with its model card."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.model_card import ModelCard, card_of
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.sessions.open import open_path
from spd_deploy.sessions.protocol import Device, Session


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
    def reranks(self) -> bool:
        """Whether it gives a pair one score, as a cross-encoder does."""
        return self.takes != "single" and self.task.outputs == 1


def open_served(
    path: Path,
    *,
    name: str | None = None,
    version: str = "1",
    runtime_choice: RuntimeChoice | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> ServedModel:
    """Open an artefact or a checkpoint (:func:`sessions.open.open_path`) and warm it up.

    Its name is that of the folder, unless ``name`` is another.

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
        warm_up(served)
    except BaseException:
        opened.session.close()
        raise
    return served


def warm_up(served: ServedModel) -> None:
    """Run the shortest and the longest row, so that no request pays for lazy initialisation.

    Raises:
        BadArtefact: the number of logits differs from the number of labels, or logits are NaN or
            infinite.
    """
    served.tokenizer.encode("The first text is slow to tokenise.")
    for length in (2, served.tokenizer.max_tokens):
        row = Tokens(ids=(served.tokenizer.pad_id,) * length, types=(0,) * length)
        logits_BC = served.session.run(served.tokenizer.pad([row]))
        if logits_BC.shape != (1, served.task.outputs):
            raise BadArtefact(
                "the number of the model's logits differs from the number of its labels",
                got=f"{logits_BC.shape[-1]} logits, {served.task.outputs} expected",
                fix="export it again",
            )
        if not np.isfinite(logits_BC).all():
            raise BadArtefact(
                "the model's logits are NaN or infinite",
                got=logits_BC.tolist(),
                fix="train it again, and check its weights",
            )
