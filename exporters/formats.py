"""The kinds of artefact that a checkpoint is lowered into: their graphs and what is beside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporters.autotune.select import Choice, choose
from exporters.autotune.tuning import Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.onnx.graph import Target
from exporters.precision import Precision
from spd_deploy.domain.artefact import Format
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.runtime_choice import Runtime
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE

Chooser = Callable[[Checkpoint, ClassifierWeights, Tuning | None, Precision], dict[str, Choice]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An artefact that is being written: its graphs and their weights stand already."""

    folder: Path
    weights: ClassifierWeights
    choices: Mapping[str, Choice]
    precision: Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportFormat:
    """One kind of artefact.

    Attributes:
        targets: its graphs by their files; the first is what others are compared with.
        runtime: what runs it where nothing else is asked for.
        choose: how a matrix's lowering is chosen where none is forced.
        tolerance: how far its logits may be from the checkpoint's; None: by accuracy.
        complete: writes what else belongs to it.
    """

    format: Format
    targets: Mapping[str, Target]
    runtime: Runtime
    choose: Chooser
    tolerance: Callable[[Precision], float | None]
    complete: Callable[[Draft], None]


# Beside the graph for ONNX Runtime its twin with standard operators alone, for OpenVINO and
# whatever else reads ONNX.
ONNX = ExportFormat(
    format="onnx",
    targets={MODEL_FILE: Target.ONNXRUNTIME, PORTABLE_FILE: Target.PORTABLE},
    runtime="onnxruntime",
    choose=choose,
    tolerance=lambda precision: precision.tolerance,
    complete=lambda draft: None,
)
