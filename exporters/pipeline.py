"""The steps of an export, which all formats share: an artefact appears whole and verified, or not.

A format implements :class:`ExportSteps`. :func:`run_export` calls the steps in order, in a hidden
folder beside the output, and renames that folder when the last step is done.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self

from exporters.artefact_folder import copy_beside
from exporters.classifier_weights import ClassifierWeights
from exporters.parity import verify_parity
from spd_deploy.domain.artefact import Artefact, Manifest, Parity, open_artefact, save_manifest
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.files import replacing
from spd_deploy.domain.golden import GOLDEN_FILE, write_golden
from spd_deploy.domain.progress import Progress
from spd_deploy.sessions.protocol import Session


class ExportSteps(Protocol):
    """One export in one format. A step that learns something returns a new value that holds it."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that is exported."""
        ...

    @property
    def weights(self) -> ClassifierWeights:
        """The tensors of the checkpoint."""
        ...

    @property
    def tolerance(self) -> float | None:
        """Allowed difference of the logits; None where the task's metric decides instead."""
        ...

    def choose_lowerings(self) -> Self:
        """Choose how each matrix is stored and multiplied."""
        ...

    def write_model(self, folder: Path, progress: Progress) -> Self:
        """Write the graphs or tensors into ``folder``."""
        ...

    def verify_weights(self, folder: Path) -> None:
        """Read the weights back from ``folder`` and compare them with the checkpoint's."""
        ...

    def openers(self, folder: Path) -> Mapping[str, Callable[[], Session]]:
        """For each model file in ``folder``, a function that opens a session of it."""
        ...

    def complete(self, folder: Path) -> None:
        """Write the other files of the format, such as ``tuning.json`` or the plan of an engine."""
        ...

    def manifest(self, folder: Path, parity: Parity) -> Manifest:
        """The manifest of the finished folder, with the hash of each file."""
        ...

    def select_runtime(self, artefact: Artefact) -> None:
        """Save the runtime to serve the artefact in, where there is more than one."""
        ...


def run_export(steps: ExportSteps, output: Path, *, progress: Progress) -> Artefact:
    """Write the artefact of ``steps`` into the folder ``output`` and open it.

    Raises:
        NotWritten: ``output`` cannot be written.
        VerificationFailed: weights, logits or accuracy differ too much; nothing was written.
    """
    with progress.stage("export", 5) as advance:
        steps = steps.choose_lowerings()
        advance(note="lowerings chosen")
        with replacing(output) as folder:
            folder.mkdir()
            steps = steps.write_model(folder, progress)
            advance(note="model written")
            steps.verify_weights(folder)
            advance(note="weights verified")
            parity = _verify_logits(steps, folder)
            advance(note=f"parity {parity.max_difference:.1g}")
            steps.complete(folder)
            manifest = steps.manifest(folder, parity)
            save_manifest(folder, manifest)
            steps.select_runtime(Artefact(folder=folder, manifest=manifest))
        advance()
    return open_artefact(output)


def _verify_logits(steps: ExportSteps, folder: Path) -> Parity:
    """Compare logits with the checkpoint's, and store what a session is tested with when opened.

    Raises:
        VerificationFailed: the logits differ by more than the tolerance.
    """
    golden, parity = verify_parity(
        steps.openers(folder), steps.checkpoint, steps.weights, steps.tolerance
    )
    write_golden(folder / GOLDEN_FILE, golden)
    copy_beside(steps.checkpoint, folder)
    return parity
