"""The official metrics of the tasks, computed by scikit-learn and SciPy.

``scores_of`` takes what a model answered and what is true, and returns one number a metric, in the
task's own order. F1 is that of the second label, as GLUE counts it. Labels are those that the
task's thresholds give; an abstention counts as the label that the model would give.

Of a multi-label task a row's truth is 1 for each label that it has and 0 for the others.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.decision import chosen_B, given_BC
from spd_deploy.domain.errors import BadData, BadSetting
from spd_deploy.domain.ordinal import nearest, places_of
from spd_deploy.domain.tasks import DEFAULT_METRICS, ProblemType, Task

# What a row's label is: a class index or a number; of a multi-label row, or of one with
# probabilities in the place of its label, a number for each label.
Label = float | tuple[float, ...]

# All metrics that a task of a kind may be scored by.
METRICS: Mapping[ProblemType, tuple[str, ...]] = {
    ProblemType.SINGLE_LABEL: ("accuracy", "f1", "macro_f1", "matthews"),
    ProblemType.MULTI_LABEL: DEFAULT_METRICS[ProblemType.MULTI_LABEL],
    ProblemType.REGRESSION: DEFAULT_METRICS[ProblemType.REGRESSION],
}
# Of labels with an order; a mean absolute error is better the smaller it is, so none is chosen by.
_ORDINAL = ("accuracy", "quadratic_kappa", "macro_f1", "pearson", "spearman")
SMALLER_IS_BETTER = ("mean_absolute_error",)
_OF_NUMBERS = ("pearson", "spearman")

# From this probability on a row of a multi-label task counts as having a label.
TRUE = 0.5


def scores_of(
    task: Task, logits_BC: NDArray[np.floating], labels_B: Sequence[Label]
) -> dict[str, float]:
    """Each of the task's metrics over B answers; NaN where one is undefined (constant answers).

    Raises:
        BadData: there is nothing to score.
    """
    if not len(labels_B):
        raise BadData("no labelled rows to score", fix="check the split and its label column")
    logits = np.asarray(logits_BC, dtype=np.float64)
    truth = truth_of(task, labels_B)
    if task.is_multi_label:
        return _multi_label_scores(task, logits, truth)
    if task.ordinal:
        return {name: _ordinal_score(task, name, truth, logits[:, 0]) for name in task.metrics}
    answers_B = logits[:, 0] if task.is_regression else labels_given(task, logits)
    truth_B = truth if task.is_regression else truth.astype(np.int64)
    return {name: _score(name, truth_B, answers_B) for name in task.metrics}


def led_by(task: Task, metric: str) -> Task:
    """The task with another headline; its other metrics stay.

    Raises:
        BadSetting: the task has no such metric.
    """
    names = _ORDINAL if task.ordinal else METRICS[task.problem_type]
    known = [one for one in names if one != "f1" or len(task.labels) == 2]
    if metric not in known:
        raise BadSetting(
            f"task {task.name} has no such metric", got=metric, fix=f"use {', '.join(known)}"
        )
    return replace(task, metrics=(metric, *(one for one in task.metrics if one != metric)))


def truth_of(task: Task, labels_B: Sequence[Label]) -> NDArray[np.float64]:
    """The true label of each row ``[B]``, or of a multi-label task of each label ``[B, C]``.

    Where a row of a classifier of one label has probabilities, its label is the most probable one.
    """
    if task.is_multi_label:
        return np.asarray(labels_B, dtype=np.float64)
    plain = [int(np.argmax(one)) if isinstance(one, tuple) else one for one in labels_B]
    return np.asarray(plain, dtype=np.float64)


def labels_given(task: Task, logits_BC: NDArray[np.floating]) -> NDArray[np.int64]:
    """The number of the label that each row gets, of one label a row; the nearest of an order."""
    if task.ordinal:
        return nearest(task.ordinal, logits_BC[:, 0])
    if not task.decision.thresholds:
        return np.asarray(logits_BC.argmax(1), dtype=np.int64)
    return chosen_B(task.decision, task.labels, scores_from(task, logits_BC))


def given_labels_BC(task: Task, logits_BC: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which labels each row gets from a classifier of one label, or of several."""
    if task.is_multi_label:
        return given_BC(task.decision, task.labels, scores_from(task, logits_BC))
    given_B = labels_given(task, logits_BC)
    return np.asarray(given_B[:, None] == np.arange(len(task.names)))


def _ordinal_score(
    task: Task, name: str, truth_B: NDArray[np.float64], numbers_B: NDArray[np.float64]
) -> float:
    """A metric of labels with an order: on the labels given, a correlation on the numbers."""
    if name in _OF_NUMBERS:
        return _score(name, truth_B, numbers_B)
    true_B, given_B = nearest(task.ordinal, truth_B), nearest(task.ordinal, numbers_B)
    if name == "mean_absolute_error":
        places = np.array(places_of(task.ordinal))
        return float(np.abs(places[true_B] - places[given_B]).mean())
    return _score(name, true_B, given_B)


def _multi_label_scores(
    task: Task, logits_BC: NDArray[np.float64], truth_BC: NDArray[np.float64]
) -> dict[str, float]:
    """The metrics of a multi-label task, those of F1 on the labels that are given."""
    from sklearn import metrics

    scores_BC = scores_from(task, logits_BC)
    given = given_BC(task.decision, task.labels, scores_BC)
    truth = truth_BC >= TRUE
    found: dict[str, float] = {}
    for name in task.metrics:
        match name:
            case "micro_f1" | "macro_f1":
                average = name.removesuffix("_f1")
                value = metrics.f1_score(truth, given, average=average, zero_division=0.0)
            case "mean_average_precision":
                there = truth.any(0)  # of a label that no row has it is undefined
                ordered = (truth[:, there], scores_BC[:, there])
                value = metrics.average_precision_score(*ordered) if there.any() else math.nan
            case _:
                raise AssertionError(f"no metric of several labels is called {name}")
        found[name] = float(value)
    return found


def merged_scores(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """The metrics of one or more files as one mapping; an undefined one becomes None.

    Those of a file after the first carry its last word: MNLI has ``accuracy`` on matched and
    ``accuracy_mismatched``.
    """
    found: dict[str, float | None] = {}
    for i, (part, scores) in enumerate(parts.items()):
        suffix = f"_{part.split('_')[-1]}" if i else ""
        for metric, value in scores.items():
            found[f"{metric}{suffix}"] = value if math.isfinite(value) else None
    return found


def _score(name: str, truth_B: NDArray[np.generic], answers_B: NDArray[np.generic]) -> float:
    """A metric by its name; NaN where it is undefined, as a correlation of constants."""
    from scipy import stats
    from sklearn import metrics

    with warnings.catch_warnings():
        # Constant answers leave a correlation undefined; NaN says so, a warning adds nothing.
        warnings.simplefilter("ignore")
        match name:
            case "accuracy":
                value = metrics.accuracy_score(truth_B, answers_B)
            case "f1":
                value = metrics.f1_score(truth_B, answers_B)
            case "macro_f1":
                value = metrics.f1_score(truth_B, answers_B, average="macro")
            case "matthews":
                value = metrics.matthews_corrcoef(truth_B, answers_B)
            case "quadratic_kappa":  # Cohen (1968): the weight is the squared distance of ranks
                value = metrics.cohen_kappa_score(truth_B, answers_B, weights="quadratic")
            case "pearson":
                value = (
                    stats.pearsonr(truth_B, answers_B).statistic if len(truth_B) > 1 else math.nan
                )
            case "spearman":
                value = (
                    stats.spearmanr(truth_B, answers_B).statistic if len(truth_B) > 1 else math.nan
                )
            case _:
                raise AssertionError(f"no metric is called {name}")
    return float(value)
