"""How far a classifier's probabilities are from the truth: calibration error and Brier score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationError:
    """How well the probabilities of a classifier fit what is true.

    Attributes:
        expected: expected calibration error in [0, 1]: the mean distance of confidence and accuracy
            over 15 bins of equal width, weighted by their rows (Guo et al., 2017).
        brier: Brier score: the mean squared distance of the probabilities to the truth, summed over
            the labels, in [0, 2].
        confidence: mean probability of the label that the model answers.
    """

    expected: float
    brier: float
    confidence: float


def calibration_error(
    scores_BC: NDArray[np.float64], labels_B: NDArray[np.int64]
) -> CalibrationError:
    """The calibration of probabilities.

    Args:
        scores_BC: probability of each label; a row sums to 1.
        labels_B: index of the true label of each row.
    """
    confidence_B = scores_BC.max(1)
    right_B = (scores_BC.argmax(1) == labels_B).astype(np.float64)
    bins_B = np.minimum((confidence_B * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins_B, weights=confidence_B - right_B, minlength=_BINS)
    truth_BC = np.eye(scores_BC.shape[1])[labels_B]
    return CalibrationError(
        expected=float(np.abs(gaps).sum() / len(labels_B)),
        brier=float(((scores_BC - truth_BC) ** 2).sum(1).mean()),
        confidence=float(confidence_B.mean()),
    )
