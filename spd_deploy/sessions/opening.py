"""Opens whatever a path holds: an artefact in its runtime, a checkpoint in PyTorch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spd_deploy.domain.artefact import Artefact, Golden, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.sessions.protocol import Device, Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A session with what is needed to feed it and to read its answers."""

    session: Session
    tokenizer: Tokenizer
    task: Task


def session_from_artefact(
    artefact: Artefact, *, device: Device = "cpu", threads: int | None = None
) -> Session:
    """Open the runtime that the artefact's format asks for."""
    from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession

    if artefact.manifest.format != "onnx":
        raise Unavailable(
            "this version runs ONNX artefacts only",
            got=f"format {artefact.manifest.format!r}",
            fix="export with --format onnx",
        )
    return OnnxSession(
        artefact.folder / MODEL_FILE,
        precision=artefact.manifest.precision,
        device=device,
        threads=threads,
    )


def open_path(path: Path, *, device: Device = "cpu", threads: int | None = None) -> Opened:
    """Open an artefact or a checkpoint, whichever ``path`` holds, self-tested where it can be.

    Raises:
        SpdError: it is neither, it is damaged, or it does not run here.
    """
    if is_artefact(path):
        artefact = open_artefact(path)
        session = session_from_artefact(artefact, device=device, threads=threads)
        self_test(session, artefact.golden(), tolerance=artefact.manifest.parity.tolerance)
        return Opened(session=session, tokenizer=artefact.tokenizer(), task=artefact.task)

    from spd_deploy.sessions.torch import TorchSession

    checkpoint = open_checkpoint(path)
    tokenizer = Tokenizer(path / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    session = TorchSession(path, device=device)
    return Opened(session=session, tokenizer=tokenizer, task=checkpoint.task)


def self_test(session: Session, golden: Golden, *, tolerance: float) -> float:
    """Run the golden inputs and compare with the checkpoint's logits.

    Returns:
        The largest difference, absolute for logits below 1 and relative above.

    Raises:
        BadArtefact: the difference is larger than ``tolerance``, or not a number.
    """
    difference = difference_between(session.run(golden.batch), golden.logits_BC)
    if not difference <= tolerance:
        raise BadArtefact(
            "the artefact does not give its checkpoint's logits on this machine",
            got=f"a difference of {difference:.2g}, {tolerance:g} allowed",
            fix="export it again on this machine; if that fails too, please report it",
        )
    return difference


def difference_between(found_BC: np.ndarray, expected_BC: np.ndarray) -> float:
    """Largest difference between logits, measured in units of max(1, largest expected)."""
    scale = max(1.0, float(np.abs(expected_BC).max()))
    return float(np.abs(found_BC - expected_BC).max()) / scale
