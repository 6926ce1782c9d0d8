"""Logits to answers: softmax, sigmoid or the number itself, as the task's activation says.

The labels that follow from the scores are in ``domain.decision``.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.decision import Decided, decide_many, decide_one
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.ordinal import nearest
from spd_deploy.domain.tasks import Activation, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One label with its score: a probability, or for a regression the number itself.

    ``index`` is the label's place among the model's outputs. Of labels with an order the score is
    the number, and the label the one that it is rounded to.
    """

    label: str
    score: float
    index: int


def answers_of(task: Task, logits_C: NDArray[np.float32], *, raw: bool = False) -> list[Answer]:
    """Every label of one row with its score, best first; of equal scores, the earlier label.

    Args:
        task: says how logits become scores, and the labels' names.
        logits_C: what the model gave for the row.
        raw: give the logits themselves.

    Raises:
        EngineFailed: the logits are not finite.
    """
    logits: list[float] = logits_C.tolist()
    if not all(map(math.isfinite, logits)):
        raise EngineFailed("the model gave a score that is not a number", fix="report this input")
    scores = logits if raw else _activate(task, logits)
    labels = task.labels or (_number_named(task, logits[0]),)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [Answer(label=labels[i], score=scores[i], index=i) for i in order]


def decided_of(task: Task, logits_C: NDArray[np.float32]) -> Decided:
    """The labels that one row is given, by the task's thresholds and its bound to abstain.

    A regression gives no label, or the nearest of labels with an order.
    """
    logits: list[float] = logits_C.tolist()
    if task.is_regression:
        return Decided(given=(0,) if task.ordinal else (), best=0)
    scores = _activate(task, logits) if task.decision or task.is_multi_label else logits
    decide = decide_many if task.is_multi_label else decide_one
    return decide(task.decision, task.labels, scores)


def scores_from(task: Task, logits_BC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores ``[B, C]`` by the task's activation, as the models answer them."""
    logits = np.asarray(logits_BC, dtype=np.float64)
    match task.activation:
        case Activation.NONE:
            return logits
        case Activation.SIGMOID:
            small = np.exp(-np.abs(logits))  # so that no exponential overflows
            return np.asarray(np.where(logits >= 0, 1.0, small) / (1 + small))
        case Activation.SOFTMAX:
            weights = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(weights / weights.sum(1, keepdims=True))


def _number_named(task: Task, number: float) -> str:
    """The label of a predicted number: the nearest of labels with an order, or ``score``."""
    return task.ordinal[int(nearest(task.ordinal, number))] if task.ordinal else "score"


def _activate(task: Task, logits: list[float]) -> list[float]:
    """The task's activation. For a few labels Python is faster than NumPy."""
    match task.activation:
        case Activation.NONE:
            return logits
        case Activation.SIGMOID:
            return [_sigmoid(logit) for logit in logits]
        case Activation.SOFTMAX:
            largest = max(logits)  # so that no exponential overflows
            weights = [math.exp(logit - largest) for logit in logits]
            total = math.fsum(weights)
            return [weight / total for weight in weights]


def _sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without an exponential that overflows."""
    weight = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else weight) / (1.0 + weight)
