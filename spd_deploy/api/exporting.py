"""``spd.export``: a checkpoint in, an artefact that can be served out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.command_options import as_options, no_usage_errors
from spd_deploy.api.display import ResultView, SavedResult
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.shapes import spelled_gains

if TYPE_CHECKING:
    from spd_deploy.domain.artefact import Artefact, Manifest


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class ExportResult(SavedResult):
    """The result of an export; ``load``, ``bench`` and the others take it as a path.

    Attributes:
        artefact: the folder and its verified manifest.
        notes: messages of the run.
    """

    artefact: "Artefact"
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The folder of the artefact, which ``spd serve`` and ``load`` open."""
        return self.artefact.folder

    @property
    def manifest(self) -> "Manifest":
        """Format, precision, runtime, matrices and scores."""
        return self.artefact.manifest

    def to_json(self) -> dict[str, Any]:
        """What ``spd export --json`` prints."""
        return {"artefact": str(self.path), **self.manifest.to_json()}

    def view(self) -> ResultView:
        """How the matrices are run, in what the artefact is served, and how exact it is."""
        manifest = self.manifest
        lowered = Counter(row.lowering for row in manifest.matrices)
        facts = {
            "pattern": manifest.pattern,
            "matrices": ", ".join(f"{count} {name}" for name, count in lowered.items()),
            "runs in": str(manifest.runtime_choice),
            "parity": manifest.nearness,
            "saved": f"{self.path} ({bytes_of(self.path) / 1e6:.1f} MB)",
        }
        if manifest.measured:
            facts["measured"] = f"{spelled_gains(manifest.measured)} over all dense"
        title = f"{manifest.format} artefact of {manifest.task.name}, {manifest.precision}"
        return ResultView(title=title, facts=facts)


@needs_extras("export", "export")
def export(
    checkpoint: str | PathLike[str],
    *,
    revision: str | None = None,
    output: str | PathLike[str],
    format: Literal["onnx", "trt", "torch"] = "onnx",  # the option's name
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = None,
    task: str | None = None,
    data: str | PathLike[str] | None = None,
    max_drop: float | None = None,
    tune: bool = False,
    tuning: str | PathLike[str] | None = None,
    lowering: Literal["auto", "dense", "compact", "gathered"] = "auto",
    runtime: str = "auto",
    batch: int | Sequence[int] | None = None,
    seq: int | Sequence[int] | None = None,
    no_build: bool = False,
    threads: int | None = None,
    seconds: float | None = None,
    skip_broken_rows: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> ExportResult:
    """Lower a checkpoint into a form whose zeros cost no time, verified before it is written.

    Each parameter is the option of ``spd export`` with the same name.

    Args:
        checkpoint: the folder of a checkpoint, or of any Hugging Face classifier; its name on the
            hub, or an address.
        revision: branch, tag or commit of a model on the hub.
        output: the folder to write.
        format: ``onnx`` for ONNX Runtime and OpenVINO, ``torch`` for PyTorch with kernels for GPUs,
            ``trt`` for a TensorRT engine.
        precision: of the matrix products; by default fp32, and fp16 for ``torch`` and ``trt``.
        task: the task of ``data``; by default the one that the model was trained for.
        data: labelled data that int8 is calibrated and judged on.
        max_drop: how many points of the headline metric int8 or bf16 may lose; 1 by default.
        tune: choose how the matrices are run, and the runtime, by timing on this machine.
        tuning: the ``tuning.json`` of an earlier export, to choose by its times instead.
        lowering: force one way to run the matrices, for comparison.
        runtime: what the artefact is to be served in; ``auto`` is the fastest where ``tune`` timed
            them, else ONNX Runtime.
        batch: numbers of rows, such as ``[1, 8]``, to tune at or to build an engine for.
        seq: numbers of tokens, such as ``[32, 128]``, likewise.
        no_build: leave the engine of a ``trt`` artefact to ``spd build``.
        threads: threads of the runtime while tuning.
        seconds: time for one way to run one product at one shape while tuning.
        skip_broken_rows: leave broken rows of ``data`` out instead of stopping at the first.
        overwrite: replace the artefact in ``output``.
        progress: show bars and notes on standard error, or tell a listener of your own.

    Raises:
        BadInput: whatever of the checkpoint, the data or the settings is wrong.
        VerificationFailed: pattern, parity or accuracy broke; nothing was written.
    """
    values = {name: value for name, value in locals().items() if name != "progress"}
    from spd_deploy.cli.export import export as command
    from spd_deploy.cli.export import exported
    from spd_deploy.cli.options.export_options import ExportOptions

    recorder = NoteRecorder(progress)
    with no_usage_errors(command):
        artefact = exported(ExportOptions(**as_options(command, values)), recorder)
    return ExportResult(artefact=artefact, notes=recorder.notes)
