"""Logits to answers: softmax, sigmoid or the number itself, as the task's activation says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.tasks import Activation, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One label with its score: a probability, or for a regression the number itself."""

    label: str
    score: float


def answers_of(task: Task, logits_C: NDArray[np.float32], *, raw: bool = False) -> list[Answer]:
    """Every label of one row with its score, best first; of equal scores, the earlier label.

    Args:
        task: says how logits become scores, and the labels' names.
        logits_C: what the model gave for the row.
        raw: give the logits themselves.

    Raises:
        EngineFailed: the logits are not finite.
    """
    if not np.isfinite(logits_C).all():
        raise EngineFailed("the model gave a score that is not a number", fix="report this input")
    scores_C = logits_C.astype(np.float64) if raw else _activate(task, logits_C.astype(np.float64))
    labels = task.labels or ("score",)
    order = np.argsort(-scores_C, kind="stable")
    return [Answer(label=labels[i], score=float(scores_C[i])) for i in order]


def _activate(task: Task, logits_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """The task's activation."""
    match task.activation:
        case Activation.NONE:
            return logits_C
        case Activation.SIGMOID:
            return np.asarray(np.exp(-np.logaddexp(0.0, -logits_C)))
        case Activation.SOFTMAX:
            weight_C = np.exp(logits_C - logits_C.max())  # so that no exponential overflows
            return np.asarray(weight_C / weight_C.sum())
