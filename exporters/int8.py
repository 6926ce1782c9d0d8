"""int8 graphs, written and scored: the task's metric decides how far they may round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from exporters.precision import CalibrationSet, Precision, Scores
from exporters.verify import JudgedGraph, judge_graphs, refuse_accuracy_loss
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession

# The keys of the scores in the manifest: the first graph, and the portable one where there is one.
_SCORE_KEYS = ("int8", "int8, portable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Graphs:
    """The result of writing int8 graphs.

    Attributes:
        word_embeddings: the precision that the word-embedding table is stored in.
        scores: the task's scores of the same graph in fp32, and of each int8 graph.
        calibration: how well the scores of each int8 graph fit what is true.
    """

    word_embeddings: Precision
    scores: Mapping[str, Scores]
    calibration: Mapping[str, TemperatureScaling]


def write_int8_graphs(
    folder: Path,
    graphs_with: Callable[[Precision], Mapping[str, ClassifierGraph]],
    precisions: Sequence[Precision],
    fp32_graph: ClassifierGraph,
    calibration_set: CalibrationSet,
    progress: Progress,
) -> Int8Graphs:
    """Write int8 graphs with the smallest word-embedding table that keeps the accuracy.

    Args:
        folder: where the graphs are written.
        graphs_with: makes the int8 graphs for a precision of the word-embedding table.
        precisions: the precisions to try for that table, smallest first.
        fp32_graph: the same network in fp32, which gives the scores to compare with.
        calibration_set: scores a session, and says how much of the metric may be lost.
        progress: reports where the smallest table loses too much.

    Raises:
        VerificationFailed: int8 loses more than allowed with each of the precisions.
    """
    before = _fp32_scores(fp32_graph, calibration_set)
    after, stored = list[JudgedGraph](), precisions[0]
    for stored in precisions:
        graphs = graphs_with(stored)
        write_graphs(folder, graphs)
        after = judge_graphs([folder / name for name in graphs], calibration_set)
        if all(calibration_set.allows(before, one.scores) for one in after):
            break
    refuse_accuracy_loss((one.scores for one in after), calibration_set, before)
    if stored is not precisions[0]:
        progress.note(
            f"the word-embedding table is stored in {stored}: in {precisions[0]} it costs more "
            "accuracy than --max-drop allows"
        )
    judged = dict(zip(_SCORE_KEYS, after, strict=False))
    return Int8Graphs(
        word_embeddings=stored,
        scores={"fp32": before, **{key: one.scores for key, one in judged.items()}},
        calibration={
            key: one.calibration for key, one in judged.items() if one.calibration is not None
        },
    )


def _fp32_scores(graph: ClassifierGraph, calibration_set: CalibrationSet) -> Scores:
    """The task's scores of a graph in fp32, written to a temporary folder."""
    with scratch_folder("fp32") as scratch:
        write_graphs(scratch, {MODEL_FILE: graph})
        with OnnxSession(scratch / MODEL_FILE, precision="fp32") as session:
            return calibration_set.score(session)
