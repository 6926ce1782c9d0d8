"""Checkpoint to an artefact of ONNX graphs, for ONNX Runtime, OpenVINO and TensorRT."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from exporters.artefact_folder import manifest_of, matrix_rows, refuse_unready
from exporters.autotune.select import force_lowering
from exporters.autotune.tuning import TUNING_FILE, Tuning
from exporters.classifier_weights import Array, ClassifierWeights, read_weights
from exporters.formats import ONNX, DraftArtefact, ExportFormat
from exporters.int8 import write_int8_graphs
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.calibrate import calibrate_ranges
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.smoothing import smooth
from exporters.onnx.storage import write_graphs
from exporters.pipeline import run_export
from exporters.precision import (
    CalibrationSet,
    Precision,
    Scores,
    arithmetic_for,
    word_embedding_precision,
)
from exporters.verify import verify_weights
from spd_deploy.domain.artefact import Artefact, Manifest, Parity, hashes_of
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import write_json
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.domain.text import Batch
from spd_deploy.domain.versions import versions_of
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.protocol import Session

# Times the lowerings of a checkpoint, or returns times that were measured before.
Tuner = Callable[[Checkpoint, ClassifierWeights], Tuning]
# Saves the artefact with the chosen runtime in its manifest.
SelectRuntime = Callable[[Artefact], Artefact]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """A request for an export to ONNX graphs.

    Attributes:
        export_format: the graphs to write: ``ONNX``, or those of a TensorRT engine.
        precision: precision of the products with the encoder's matrices.
        calibration_set: texts that int8 is calibrated on, and the metric it must keep.
        lowering: the lowering to force on every matrix that has it; then nothing is timed.
        tuner: gives the times to choose lowerings by; without one, a cost model chooses.
        select_runtime: writes the runtime to serve in into the manifest, before the artefact
            appears under its name.

    Raises:
        BadSetting: int8 without a calibration set.
    """

    export_format: ExportFormat = ONNX
    precision: Precision = Precision.FP32
    calibration_set: CalibrationSet | None = None
    lowering: LoweringName | None = None
    tuner: Tuner | None = None
    select_runtime: SelectRuntime | None = None

    def __post_init__(self) -> None:
        """int8 has a calibration set."""
        if self.precision.calibrated and self.calibration_set is None:
            raise BadSetting(
                f"{self.precision} needs texts to calibrate on", fix="name the task's data: --data"
            )


def artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    request: ExportRequest | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Artefact:
    """Export a checkpoint, sparse or dense, into the folder ``output``. Default: onnx in fp32.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        BadModel: the checkpoint has no tokenizer, or tensors that do not fit.
        BadSetting: the forced lowering fits no matrix.
        VerificationFailed: pattern, parity or accuracy broke; nothing was written.
        BadReport: the tuning is of another checkpoint, or in another precision.
    """
    request = request or ExportRequest()
    refuse_unready(checkpoint, output, overwrite=overwrite)
    weights = read_weights(checkpoint)
    timed = request.tuner is not None and request.lowering is None
    tuning = request.tuner(checkpoint, weights) if timed and request.tuner else None
    steps = GraphExport(checkpoint=checkpoint, weights=weights, request=request, tuning=tuning)
    return run_export(steps, output, progress=progress or Silent())


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphExport:
    """The steps of an export to ONNX graphs (``exporters.pipeline.ExportSteps``).

    Attributes:
        choices: the lowering of each matrix, once chosen.
        ranges: the largest input of each matrix on the calibration texts; empty but in int8.
        smoothing: what the columns of each matrix were multiplied by; empty where none were.
        word_embeddings: the precision that the word-embedding table is stored in, once written.
        scores: the task's scores in fp32 and int8, once measured; empty but in int8.
        calibration: how well the scores of int8 fit what is true, likewise.
    """

    checkpoint: Checkpoint
    weights: ClassifierWeights
    request: ExportRequest
    tuning: Tuning | None
    choices: Mapping[str, LoweringChoice] = field(default_factory=dict)
    ranges: Mapping[str, float] = field(default_factory=dict)
    smoothing: Mapping[str, Array] = field(default_factory=dict)
    word_embeddings: Precision = Precision.FP32
    scores: Mapping[str, Scores] = field(default_factory=dict)
    calibration: Mapping[str, TemperatureScaling] = field(default_factory=dict)

    @property
    def tolerance(self) -> float | None:
        """The tolerance of the format in this precision; None in int8."""
        return self.request.export_format.tolerance(self.request.precision)

    def choose_lowerings(self) -> Self:
        """Force the lowering that was asked for, or choose by times or by the cost model."""
        request = self.request
        if request.lowering is not None:
            choices = force_lowering(self.checkpoint, self.weights, request.lowering)
        else:
            choices = request.export_format.choose_lowerings(
                self.checkpoint, self.weights, self.tuning, request.precision
            )
        return replace(self, choices=choices)

    def write_model(self, folder: Path, progress: Progress) -> Self:
        """Write all graphs over one file of weights; int8 is calibrated and scored as well."""
        precision, calibration_set = self.request.precision, self.request.calibration_set
        stored = word_embedding_precision(precision, self.request.export_format.main_target)
        if not precision.calibrated or calibration_set is None:
            steps = replace(self, word_embeddings=stored)
            write_graphs(folder, steps.graphs())
            return steps
        written = write_int8_graphs(
            folder,
            self.int8_forms(calibration_set.batches, stored),
            ClassifierGraph(self.weights, self.choices),
            calibration_set,
            progress,
        )
        return replace(written.form, scores=written.scores, calibration=written.calibration)

    def int8_forms(self, batches: Sequence[Batch], stored: Precision) -> Iterator[Self]:
        """The forms of int8, the smallest and fastest first.

        A larger word-embedding table takes no time; smoothing, with a range for each token where
        the runtime quantises them, does.
        """
        for make in (self._calibrated, self._smoothed):
            calibrated = make(batches)
            for precision in (stored, Precision.FP32):
                yield replace(calibrated, word_embeddings=precision)

    def _calibrated(self, batches: Sequence[Batch]) -> Self:
        """With the ranges of its inputs on the texts of ``batches``."""
        ranges = calibrate_ranges(self.weights, self.choices, batches, self.smoothing)
        return replace(self, ranges=ranges)

    def _smoothed(self, batches: Sequence[Batch]) -> Self:
        """With smoothed inputs, and their ranges."""
        found = smooth(self.weights, self.choices, batches)
        steps = replace(self, weights=found.weights, choices=found.choices, smoothing=found.factors)
        return steps._calibrated(batches)

    @property
    def quantised(self) -> str:
        """How the parts are stored and rounded, for the reader of a log."""
        inputs = "smoothed inputs" if self.smoothing else "plain inputs"
        return f"{inputs} and word embeddings in {self.word_embeddings}"

    @property
    def _by_token(self) -> bool:
        """Whether a dynamic int8 graph has a range for each token."""
        feature_major = any(choice.lowering.feature_major for choice in self.choices.values())
        return bool(self.smoothing) and not feature_major

    def graphs(self) -> dict[str, ClassifierGraph]:
        """The graphs of the format by file name."""
        request = self.request
        return {
            name: ClassifierGraph(
                self.weights,
                self.choices,
                target,
                arithmetic_for(request.precision, target, self.ranges, by_token=self._by_token),
                self.word_embeddings,
                self.smoothing,
            )
            for name, target in request.export_format.targets.items()
        }

    def verify_weights(self, folder: Path) -> None:
        """Compare the constants of each graph with the checkpoint's weights."""
        for name in self.request.export_format.targets:
            verify_weights(
                folder / name,
                self.checkpoint,
                self.weights,
                self.choices,
                self.request.precision,
                self.word_embeddings,
            )

    def openers(self, folder: Path) -> Mapping[str, Callable[[], Session]]:
        """Each graph in ONNX Runtime."""
        return {
            name: partial(OnnxSession, folder / name, precision="fp32")
            for name in self.request.export_format.targets
        }

    def complete(self, folder: Path) -> None:
        """Write ``tuning.json`` where something was timed, and what the format adds."""
        if self.tuning is not None:
            write_json(folder / TUNING_FILE, self.tuning.to_json())
        draft = DraftArtefact(
            folder=folder,
            weights=self.weights,
            choices=self.choices,
            precision=self.request.precision,
        )
        self.request.export_format.complete(draft)

    def manifest(self, folder: Path, parity: Parity) -> Manifest:
        """The manifest, with the times of the network and the scores where there are any."""
        export_format, checkpoint = self.request.export_format, self.checkpoint
        manifest = manifest_of(
            checkpoint,
            format=export_format.format,
            precision=self.request.precision.value,
            matrices=matrix_rows(checkpoint, self.choices),
            parity=parity,
            files=hashes_of(folder),
            opset=export_format.main_target.opset,
            runtime=export_format.runtime,
            scores={**checkpoint.scores, **self.scores},
            versions=versions_of("onnx", "onnxruntime", "onnxruntime-gpu", "torch"),
        )
        if self.request.calibration_set is not None:
            split = _split(checkpoint.split, self.request.calibration_set.split)
            calibration = {**checkpoint.calibration, **self.calibration}
            manifest = replace(manifest, split=split, calibration=calibration)
        return manifest if self.tuning is None else _with_times(manifest, self.tuning)

    def select_runtime(self, artefact: Artefact) -> None:
        """Let the request choose the runtime, where it does."""
        if self.request.select_runtime is not None:
            self.request.select_runtime(artefact)


def _split(of_checkpoint: str | None, of_export: str) -> str:
    """The data split of all scores in the manifest; both where the export was scored on another."""
    if of_checkpoint in (None, of_export):
        return of_export
    return f"{of_checkpoint}; when exported {of_export}"


def _with_times(manifest: Manifest, tuning: Tuning) -> Manifest:
    """The manifest with the times of the whole network in the lowerings that were chosen."""
    network = tuning.network
    measured = () if network is None else network.measured(network.chosen, tuning.shapes)
    return replace(manifest, measured=measured, measured_on=tuning.where)
