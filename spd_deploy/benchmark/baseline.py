"""The dense baseline of a comparison on a CPU: an artefact, or a checkpoint exported dense."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.scratch import scratch_folder


@contextlib.contextmanager
def baseline_from(path: Path, *, progress: Progress) -> Iterator[Artefact]:
    """The artefact at ``path``, or a dense export of the checkpoint there.

    The export runs every matrix dense, whatever zeros it has. It is removed with the context.
    """
    if is_artefact(path):
        yield open_artefact(path)
        return
    from exporters.export import artefact_from_checkpoint

    checkpoint = as_dense(open_checkpoint(path))
    with scratch_folder("bench") as scratch:
        folder = scratch / path.resolve().name
        yield artefact_from_checkpoint(checkpoint, folder, progress=progress)


def as_dense(checkpoint: Checkpoint) -> Checkpoint:
    """The same weights as a dense checkpoint: without a pattern, under the score they have."""
    if checkpoint.pattern is None:
        return checkpoint
    scores = {"dense": checkpoint.scores["sparse"]} if "sparse" in checkpoint.scores else {}
    own = checkpoint.calibration.get("sparse")
    return replace(
        checkpoint,
        pattern=None,
        densities={},
        detected=None,
        scores=scores,
        calibration={} if own is None else {"dense": own},
    )
