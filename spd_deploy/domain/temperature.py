"""Temperature scaling: one number that makes a classifier's probabilities fit what is true.

Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. The logits are divided by
a temperature T that minimises the negative log-likelihood of held-out rows. The label with the
largest score stays the same. In this project the classifier's last layer is divided by T, so that
every runtime and every protocol gives calibrated scores without knowing of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.calibration_error import CalibrationError, calibration_error
from spd_deploy.domain.tasks import Activation, Task

# Fewer rows say too little of how often an answer of 0.9 is right.
MIN_ROWS = 50
# A temperature outside of these is no calibration: the rows have no error, or the model no skill.
_LOWEST, _HIGHEST = 0.05, 20.0
_HALVINGS = 60
# Twice the gain in log-likelihood that chance exceeds in one case of twenty (likelihood-ratio test
# with one parameter; Wilks, 1938).
_SIGNIFICANT = 3.841


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTemperature:
    """The temperature that fits, or 1 with the reason why none was fitted."""

    value: float = 1.0
    rows: int = 0
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TemperatureScaling:
    """How a model was calibrated, and what that changed.

    Attributes:
        temperature: what the logits of the trained model were divided by; 1 where they are its own.
        rows: number of rows that it was fitted on; 0 where it was not fitted.
        split: the rows that the errors were measured on.
        before: the calibration without the temperature.
        after: the calibration of the model as it is.
    """

    temperature: float
    rows: int
    split: str
    before: CalibrationError
    after: CalibrationError

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The calibration in a JSON object.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or of the wrong kind.
        """
        errors = {name: CalibrationError(**value[name]) for name in ("before", "after")}
        temperature = float(value["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"a temperature of {temperature}")
        return cls(
            temperature=temperature, rows=int(value["rows"]), split=str(value["split"]), **errors
        )

    def __str__(self) -> str:
        """The temperature and what it changed, in a line."""
        after = f"calibration error {self.after.expected:.4f}, Brier score {self.after.brier:.4f}"
        if self.temperature == 1:
            return f"{after} ({self.split})"
        return (
            f"{after} at temperature {self.temperature:.3f}; {self.before.expected:.4f} and "
            f"{self.before.brier:.4f} without ({self.split})"
        )


def is_calibrated_by_temperature(task: Task) -> bool:
    """Whether the scores are probabilities of labels."""
    return not task.is_regression and task.activation is not Activation.NONE


def error_of(
    task: Task, logits_BC: NDArray[np.floating], truth: NDArray[np.floating]
) -> CalibrationError:
    """The calibration of logits; ``truth`` is that of ``calibration_error``."""
    return calibration_error(scores_from(task, logits_BC), truth)


def fit_temperature(
    task: Task, logits_BC: NDArray[np.floating], truth: NDArray[np.floating]
) -> FittedTemperature:
    """The temperature with the smallest negative log-likelihood of B rows.

    The likelihood is convex in 1 / T, so its only minimum is where its slope is 0, and that is
    found by halving.

    Args:
        task: of the labels.
        logits_BC: what the model answers.
        truth: index of the true label of each row, or 0 and 1 for each label of a multi-label row.
    """
    rows = len(logits_BC)
    if rows < MIN_ROWS:
        return FittedTemperature(reason=f"{rows} rows, {MIN_ROWS} are needed")
    logits = np.asarray(logits_BC, dtype=np.float64)
    truth_BC = np.asarray(truth, dtype=np.float64)
    if truth.ndim == 1:
        truth_BC = np.eye(logits.shape[1])[truth.astype(np.int64)]

    def slope(inverse: float) -> float:
        """Derivative of the negative log-likelihood by 1 / T."""
        expected = scores_from(task, logits * inverse)
        return float(((expected - truth_BC) * logits).sum() / rows)

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    if slope(low) >= 0:
        return FittedTemperature(reason="the scores say nothing of the labels")
    if slope(high) <= 0:
        return FittedTemperature(reason="the model errs on none of the rows")
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    inverse = math.sqrt(low * high)
    gain = _likelihood(task, logits * inverse, truth_BC) - _likelihood(task, logits, truth_BC)
    if 2 * gain < _SIGNIFICANT:
        return FittedTemperature(
            reason=f"on {rows} rows no temperature is better than 1 beyond chance"
        )
    return FittedTemperature(value=1 / inverse, rows=rows)


def _likelihood(task: Task, logits_BC: NDArray[np.float64], truth_BC: NDArray[np.float64]) -> float:
    """The log-likelihood of what is true, summed over the rows."""
    if task.is_multi_label:
        return float((truth_BC * logits_BC - np.logaddexp(0.0, logits_BC)).sum())
    largest_B1 = logits_BC.max(1, keepdims=True)
    total_B1 = largest_B1 + np.log(np.exp(logits_BC - largest_B1).sum(1, keepdims=True))
    return float((truth_BC * (logits_BC - total_B1)).sum())


def calibration_of_answers(
    task: Task,
    logits_BC: NDArray[np.floating],
    truth: NDArray[np.floating],
    fitted: FittedTemperature,
    *,
    split: str,
    before: float = 1.0,
) -> TemperatureScaling:
    """The calibration of a model whose logits ``fitted`` is about to divide.

    Args:
        task: of the labels.
        logits_BC: what the model answers to the rows that it is measured on.
        truth: what is true of them.
        fitted: the temperature.
        split: name of the rows.
        before: the temperature that the model was divided by before.
    """
    own = np.asarray(logits_BC, dtype=np.float64)
    return TemperatureScaling(
        temperature=before * fitted.value,
        rows=fitted.rows,
        split=split,
        before=error_of(task, own * before, truth),
        after=error_of(task, own / fitted.value, truth),
    )
