"""Verifies the weights and the accuracy of an export before it may appear under its name.

The weights, read back from the file, are the checkpoint's, in fp32 bit for bit, and satisfy its
pattern. In int8 the task's metric must not fall too far. Logits are compared in
``exporters.parity``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.embeddings import restored_word_embeddings, word_embeddings
from exporters.onnx.storage import read_constants
from exporters.precision import CalibrationSet, Precision, Scores
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.sessions.onnxruntime import OnnxSession

_REPORT = "nothing was written; this is a fault of spd, please report it"


def verify_weights(
    model: Path,
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    choices: Mapping[str, LoweringChoice],
    precision: Precision,
    stored_embeddings: Precision = Precision.FP32,
) -> None:
    """Read the constants of a graph back and compare them with the checkpoint's.

    Each encoder matrix is compared in ``precision``, and the word-embedding table in
    ``stored_embeddings``.

    Raises:
        VerificationFailed: a matrix or the table differs by more than its precision rounds, or a
            matrix does not satisfy its pattern.
    """
    constants = read_constants(model)
    if not stored_embeddings.matches(restored_word_embeddings(constants), word_embeddings(weights)):
        raise VerificationFailed("the word embeddings were not stored as they were", fix=_REPORT)
    for matrix in weights.encoder.matrices():
        restored_NK = choices[matrix.name].lowering.restored(constants)
        refuse_broken_pattern(checkpoint, matrix, restored_NK)
        if not precision.matches(restored_NK, weights.of(matrix)):
            raise VerificationFailed(f"{matrix.name} was not stored as it was", fix=_REPORT)


def refuse_broken_pattern(checkpoint: Checkpoint, matrix: Matrix, stored_NK: Array) -> None:
    """Refuse a matrix that does not satisfy its sparsity pattern as it is stored.

    Raises:
        VerificationFailed: a weight outside the pattern is not zero.
    """
    import torch

    pattern = checkpoint.pattern_of(matrix)
    if pattern is not None and not pattern.holds(torch.tensor(stored_NK)):
        raise VerificationFailed(
            f"{matrix.name} does not satisfy {pattern} at {pattern.sparsity:.0%}",
            got=f"density {np.count_nonzero(stored_NK) / stored_NK.size:.3f}",
            fix="nothing was written; the checkpoint was changed after training",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedGraph:
    """The task's scores of an int8 graph, and how well its probabilities fit what is true."""

    scores: Scores
    calibration: TemperatureScaling | None


def judge_graphs(models: Iterable[Path], calibration_set: CalibrationSet) -> list[JudgedGraph]:
    """Run each int8 graph on labelled texts that it was not calibrated on."""
    found = []
    for model in models:
        with OnnxSession(model, precision="int8") as session:
            found.append(
                JudgedGraph(
                    scores=calibration_set.score(session),
                    calibration=calibration_set.calibration(session),
                )
            )
    return found


def refuse_accuracy_loss(
    after: Iterable[Scores], calibration_set: CalibrationSet, before: Scores
) -> None:
    """Refuse int8 graphs whose metric fell too far below that ``before`` quantisation.

    Raises:
        VerificationFailed: the metric fell by more than the calibration set allows.
    """
    for scores in after:
        if not calibration_set.allows(before, scores):
            score = scores.get(calibration_set.metric)
            raise VerificationFailed(
                f"int8 costs more {calibration_set.metric} than allowed",
                got=f"{before.get(calibration_set.metric):.4f} in fp32, "
                f"{'undefined' if score is None else f'{score:.4f}'} in int8",
                fix="nothing was written; export in fp32 (OpenVINO runs that in bf16), calibrate "
                "on more texts of the task, or allow more with --max-drop",
            )
