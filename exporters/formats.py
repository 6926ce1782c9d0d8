"""The formats of artefacts that are made of ONNX graphs: ``onnx`` here, ``trt`` in ``tensorrt``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporters.autotune.select import choose_lowerings
from exporters.autotune.tuning import Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.graph import Target
from exporters.precision import Precision
from spd_deploy.domain.artefact import Format
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.runtime_choice import Runtime
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE

ChooseLowerings = Callable[
    [Checkpoint, ClassifierWeights, Tuning | None, Precision], dict[str, LoweringChoice]
]


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftArtefact:
    """An artefact that is being written. Its graphs and their weights are in ``folder`` already."""

    folder: Path
    weights: ClassifierWeights
    choices: Mapping[str, LoweringChoice]
    precision: Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportFormat:
    """One format of artefact.

    Attributes:
        targets: the graphs, by file name. The logits of all are compared with those of the first.
        runtime: the runtime that serves the artefact unless another is chosen.
        choose_lowerings: chooses the lowering of each matrix where none is forced.
        tolerance: allowed difference of the logits in a precision; None where the task's metric
            decides instead.
        complete: writes the other files of the format.
    """

    format: Format
    targets: Mapping[str, Target]
    runtime: Runtime
    choose_lowerings: ChooseLowerings
    tolerance: Callable[[Precision], float | None]
    complete: Callable[[DraftArtefact], None]

    @property
    def main_target(self) -> Target:
        """The target of the first graph, which decides what all graphs share."""
        return next(iter(self.targets.values()))


# An ``onnx`` artefact has two graphs over one file of weights: one for ONNX Runtime, and a portable
# one of standard operators alone, for OpenVINO and other readers of ONNX.
ONNX = ExportFormat(
    format="onnx",
    targets={MODEL_FILE: Target.ONNXRUNTIME, PORTABLE_FILE: Target.PORTABLE},
    runtime="onnxruntime",
    choose_lowerings=choose_lowerings,
    tolerance=lambda precision: precision.tolerance,
    complete=lambda draft: None,
)
