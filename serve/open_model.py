"""A model opened for serving: verified, self-tested and warmed up, with what is known about it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spd_deploy.domain.artefact import Artefact, Parity, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.runtime_choice import RuntimeChoice
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.checkpoints import verified_checkpoint
from spd_deploy.sessions.open import (
    prove,
    refuse_runtime,
    session_from_artefact,
    session_from_checkpoint,
)
from spd_deploy.sessions.protocol import Device, Session

CHECKPOINT = "checkpoint"
NOT_EXPORTED = "not exported: runs in PyTorch, no sparse speed; spd export makes an artefact"


@dataclass(frozen=True, kw_only=True, slots=True)
class Density:
    """Share of non-zeros in the prunable matrices: over all weights, and of single matrices."""

    overall: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Where a model comes from and how sparse it is.

    Attributes:
        format: ``onnx`` for an artefact, ``checkpoint`` for a model folder run in PyTorch.
        density: None where nobody measured it.
        lowerings: how many matrices are run in which way.
        parity: how far the export was from its checkpoint; None for a checkpoint.
        self_test: how far it is on this machine, now.
        scores: metrics by arm, of this model and of those it was made from, on ``split``.
        sha256: of the checkpoint's weights.
    """

    format: str
    pattern: str
    sparsity: float | None
    density: Density | None
    sha256: str
    lowerings: Mapping[str, int] = field(default_factory=dict)
    parity: Parity | None = None
    self_test: float | None = None
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    split: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def warning(self) -> str | None:
        """What whoever serves it should know; None where there is nothing."""
        return NOT_EXPORTED if self.format == CHECKPOINT else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A session with what is needed to feed it and to read its answers."""

    name: str
    session: Session
    tokenizer: Tokenizer
    task: Task
    about: About

    @property
    def takes(self) -> str:
        """``single``, ``pair``, or ``either`` where the model does not say."""
        if self.task.name == "unknown":
            return "either"
        return "pair" if self.task.has_pair else "single"


def open_served(
    path: Path,
    *,
    asked: RuntimeChoice | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Served:
    """Open an artefact or a checkpoint, prove that it works, and run it once at full width.

    Raises:
        SpdError: it is neither, it is damaged, or it does not run here.
    """
    opening = _open_artefact if is_artefact(path) else _open_checkpoint
    served = opening(path, asked=asked or RuntimeChoice(), device=device, threads=threads)
    try:
        warm_up(served)
    except BaseException:
        served.session.close()
        raise
    return served


def warm_up(served: Served) -> None:
    """Run the shortest and the longest row, so that no client waits for what is slow once.

    Raises:
        BadArtefact: the model answers with another number of logits than the task has labels, or
            with logits that are not numbers.
    """
    served.tokenizer.encode("The first text is slow to tokenise.")
    for length in (2, served.tokenizer.max_tokens):
        row = Tokens(ids=(served.tokenizer.pad_id,) * length, types=(0,) * length)
        logits_BC = served.session.run(served.tokenizer.pad([row]))
        if logits_BC.shape != (1, served.task.outputs):
            raise BadArtefact(
                "the model's logits do not fit its labels",
                got=f"{logits_BC.shape[-1]} logits, {served.task.outputs} expected",
                fix="export it again",
            )
        if not np.isfinite(logits_BC).all():
            raise BadArtefact(
                "the model's logits are not numbers", got=logits_BC.tolist(), fix="train it again"
            )


def _open_artefact(
    folder: Path, *, asked: RuntimeChoice, device: Device | None, threads: int | None
) -> Served:
    """An artefact: hashes first, then the runtime, then the golden inputs."""
    artefact = open_artefact(folder, weights=False)
    session = session_from_artefact(
        artefact, runtime=asked.runtime, precision=asked.precision, device=device, threads=threads
    )
    try:
        found = prove(session, artefact)
        return Served(
            name=folder.resolve().name,
            session=session,
            tokenizer=artefact.tokenizer(),
            task=artefact.task,
            about=_about_artefact(artefact, self_test=found),
        )
    except BaseException:
        session.close()
        raise


def _open_checkpoint(
    folder: Path, *, asked: RuntimeChoice, device: Device | None, threads: int | None
) -> Served:
    """A model folder, run in PyTorch."""
    refuse_runtime(asked)
    with verified_checkpoint(folder) as checkpoint:
        return Served(
            name=folder.resolve().name,
            session=session_from_checkpoint(checkpoint, device=device, threads=threads),
            tokenizer=tokenizer_of(checkpoint),
            task=checkpoint.task,
            about=_about_checkpoint(checkpoint),
        )


def _about_artefact(artefact: Artefact, *, self_test: float) -> About:
    """What the manifest says."""
    manifest = artefact.manifest
    rows = manifest.matrices
    return About(
        format=manifest.format,
        pattern=manifest.pattern,
        sparsity=manifest.sparsity,
        density=_density([(row.shape, row.density) for row in rows]),
        lowerings=Counter(row.lowering for row in rows),
        parity=manifest.parity,
        self_test=self_test,
        scores=manifest.scores,
        split=manifest.split,
        sha256=manifest.checkpoint_sha256,
        versions=manifest.versions,
    )


def _about_checkpoint(checkpoint: Checkpoint) -> About:
    """What ``spd.json`` says."""
    shapes = {matrix.name: matrix.shape for matrix in checkpoint.encoder.matrices()}
    densities = checkpoint.densities.items()
    known = [(shapes[name], share) for name, share in densities if name in shapes]
    return About(
        format=CHECKPOINT,
        pattern="dense" if checkpoint.pattern is None else str(checkpoint.pattern),
        sparsity=None if checkpoint.pattern is None else checkpoint.pattern.sparsity,
        density=_density(known),
        scores=checkpoint.scores,
        split=checkpoint.split,
        sha256=checkpoint.weights_sha256,
        versions=checkpoint.versions,
    )


def _density(matrices: list[tuple[tuple[int, int], float]]) -> Density | None:
    """The matrices' densities in three numbers."""
    if not matrices:
        return None
    weights = [n * k for (n, k), _ in matrices]
    shares = [share for _, share in matrices]
    kept = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    return Density(overall=kept / sum(weights), lowest=min(shares), highest=max(shares))
