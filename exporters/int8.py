"""int8 graphs, written and scored: the task's metric decides how far they may round."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from exporters.precision import CalibrationSet, Scores
from exporters.verify import JudgedGraph, judge_graphs, refuse_accuracy_loss
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession

# The keys of the scores in the manifest: the first graph, and the portable one where there is one.
_SCORE_KEYS = ("int8", "int8, portable")


class Int8Form(Protocol):
    """One way to store a network in int8."""

    @property
    def quantised(self) -> str:
        """How the parts are stored and rounded, for the reader of a log."""
        ...

    def graphs(self) -> Mapping[str, ClassifierGraph]:
        """The graphs by file name; the first is for ONNX Runtime, or for TensorRT."""
        ...


Form = TypeVar("Form", bound=Int8Form)


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Graphs(Generic[Form]):
    """The result of writing int8 graphs.

    Attributes:
        form: the form that was chosen.
        scores: the task's scores of the same graph in fp32, and of each int8 graph.
        calibration: how well the scores of each int8 graph fit what is true.
    """

    form: Form
    scores: Mapping[str, Scores]
    calibration: Mapping[str, TemperatureScaling]


def write_int8_graphs(
    folder: Path,
    forms: Iterable[Form],
    fp32_graph: ClassifierGraph,
    calibration_set: CalibrationSet,
    progress: Progress,
) -> Int8Graphs[Form]:
    """Write the graphs of the first form that keeps the accuracy.

    Args:
        folder: where the graphs are written.
        forms: the forms to try, the smallest and fastest first. They are made as they are needed.
        fp32_graph: the same network in fp32, which gives the scores to compare with.
        calibration_set: scores a session, and says how much of the metric may be lost.
        progress: is told of each form that loses too much.

    Raises:
        VerificationFailed: int8 loses more than allowed in each of the forms.
    """
    before = _fp32_scores(fp32_graph, calibration_set)
    tried = list[tuple[Form, list[JudgedGraph]]]()
    for form in forms:
        if tried:
            progress.note(_lost(before, *tried[-1], calibration_set))
        tried.append((form, _written(folder, form, calibration_set)))
        if all(calibration_set.allows(before, one.scores) for one in tried[-1][1]):
            break
    else:
        best = max(tried, key=lambda one: calibration_set.lowest(j.scores for j in one[1]))
        if calibration_set.refuses:
            refuse_accuracy_loss((one.scores for one in best[1]), calibration_set, before)
        if best is not tried[-1]:
            tried.append((best[0], _written(folder, best[0], calibration_set)))
    form, after = tried[-1]
    judged = dict(zip(_SCORE_KEYS, after, strict=False))
    return Int8Graphs(
        form=form,
        scores={"fp32": before, **{key: one.scores for key, one in judged.items()}},
        calibration={
            key: one.calibration for key, one in judged.items() if one.calibration is not None
        },
    )


def _written(folder: Path, form: Int8Form, calibration_set: CalibrationSet) -> list[JudgedGraph]:
    """Write the graphs of a form over those of another, and score them."""
    graphs = form.graphs()
    write_graphs(folder, graphs)
    return judge_graphs([folder / name for name in graphs], calibration_set)


def _lost(
    before: Scores, form: Int8Form, after: list[JudgedGraph], calibration_set: CalibrationSet
) -> str:
    """The loss of a form that is not taken, as a line for the user."""
    metric, of_fp32 = calibration_set.metric, before.get(calibration_set.metric)
    lowest = calibration_set.lowest(one.scores for one in after)
    return (
        f"int8 with {form.quantised}: {metric} {lowest:.4f}, {of_fp32:.4f} in fp32; that is more "
        "than --max-drop allows, so the next form is tried"
    )


def _fp32_scores(graph: ClassifierGraph, calibration_set: CalibrationSet) -> Scores:
    """The task's scores of a graph in fp32, written to a temporary folder."""
    with scratch_folder("fp32") as scratch:
        write_graphs(scratch, {MODEL_FILE: graph})
        with OnnxSession(scratch / MODEL_FILE, precision="fp32") as session:
            return calibration_set.score(session)
