"""The official metrics of the tasks, computed by scikit-learn and SciPy.

``scores_of`` takes what a model answered and what is true, and returns one number a metric, in the
task's own order. F1 is that of the second label, as GLUE counts it.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import Task


def scores_of(
    task: Task, logits_BC: NDArray[np.floating], labels_B: Sequence[float]
) -> dict[str, float]:
    """Each of the task's metrics over B answers; NaN where one is undefined (constant answers).

    Raises:
        BadData: there is nothing to score.
    """
    if not len(labels_B):
        raise BadData("no labelled rows to score", fix="check the split and its label column")
    logits = np.asarray(logits_BC, dtype=np.float64)
    answers_B = logits[:, 0] if task.is_regression else logits.argmax(1)
    truth_B = np.asarray(labels_B, dtype=np.float64 if task.is_regression else np.int64)
    return {name: _score(name, truth_B, answers_B) for name in task.metrics}


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
