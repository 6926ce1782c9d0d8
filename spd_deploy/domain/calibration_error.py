"""How far a classifier's probabilities are from the truth: calibration error and Brier score.

Of a multi-label classifier each label of each row counts as an answer of its own, yes or no.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationError:
    """How well the probabilities of a classifier fit what is true.

    Attributes:
        expected: expected calibration error in [0, 1]: the mean distance of confidence and accuracy
            over 15 bins of equal width, weighted by their rows (Guo et al., 2017).
        brier: Brier score: the mean squared distance of the probabilities to the truth. It is
            summed over the labels, in [0, 2]; of a multi-label classifier it is the mean over the
            labels, in [0, 1].
        confidence: mean probability of the label that the model answers; of a multi-label
            classifier, of its yes or no.
    """

    expected: float
    brier: float
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Confidence and accuracy by bin: what a reliability diagram shows.

    Attributes:
        confidence: mean confidence of each bin that has answers.
        accuracy: share of right answers in each of them.
        rows: number of answers in each of them.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, scores_BC: NDArray[np.float64], truth: NDArray[np.floating]) -> Self:
        """The bins of probabilities; the arguments are those of :func:`calibration_error`."""
        confidence, right, _ = _answers(scores_BC, truth)
        bins = _bins_of(confidence)
        rows = np.bincount(bins, minlength=_BINS)
        filled = rows > 0
        sums = (np.bincount(bins, weights=w, minlength=_BINS) for w in (confidence, right))
        means = [(total[filled] / rows[filled]).tolist() for total in sums]
        return cls(
            confidence=tuple(means[0]), accuracy=tuple(means[1]), rows=tuple(rows[filled].tolist())
        )


def calibration_error(
    scores_BC: NDArray[np.float64], truth: NDArray[np.floating] | NDArray[np.int64]
) -> CalibrationError:
    """The calibration of probabilities.

    Args:
        scores_BC: probability of each label. Of a classifier of one label a row sums to 1.
        truth: index of the true label of each row, ``[B]``; of a multi-label classifier 1 for each
            label that a row has and 0 for the others, ``[B, C]``.
    """
    confidence, right, squares_BC = _answers(scores_BC, truth)
    gaps = np.bincount(_bins_of(confidence), weights=confidence - right, minlength=_BINS)
    brier_B = squares_BC.mean(1) if truth.ndim == 2 else squares_BC.sum(1)
    return CalibrationError(
        expected=float(np.abs(gaps).sum() / len(confidence)),
        brier=float(brier_B.mean()),
        confidence=float(confidence.mean()),
    )


def _answers(
    scores_BC: NDArray[np.float64], truth: NDArray[np.floating] | NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each answer its confidence and whether it is right; and all squared distances."""
    if truth.ndim == 2:
        confidence_BC = np.maximum(scores_BC, 1 - scores_BC)
        right_BC = ((scores_BC >= 0.5) == (truth >= 0.5)).astype(np.float64)
        return confidence_BC.ravel(), right_BC.ravel(), (scores_BC - truth) ** 2
    labels_B = truth.astype(np.int64)
    right_B = (scores_BC.argmax(1) == labels_B).astype(np.float64)
    truth_BC = np.eye(scores_BC.shape[1])[labels_B]
    return scores_BC.max(1), right_B, (scores_BC - truth_BC) ** 2


def _bins_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each confidence; the last one holds 1."""
    return np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
