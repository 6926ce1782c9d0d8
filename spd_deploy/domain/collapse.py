"""A model that gives every text the same answer, which its accuracy alone does not show.

With rare labels such a model scores well: if nine rows of ten are "no", always "no" has an accuracy
of 0.9.
"""

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.decision import given_BC
from spd_deploy.domain.metrics import TRUE
from spd_deploy.domain.tasks import Task

# From this share of the rows on, one label is as good as the only one.
_NEARLY_ALL = 0.99
# Where the true labels are nearly all the same, equal answers may be right.
_MAX_TRUE_SHARE = 0.95
# A regression whose answers spread less than this share of the truth's spread has learned nothing.
_MIN_SPREAD = 0.02
# Among fewer rows equal answers happen by chance.
_MIN_ROWS = 20


def constant_answer(
    task: Task, logits_BC: NDArray[np.floating], labels_B: NDArray[np.floating]
) -> str | None:
    """The answer that the model gives to all rows or nearly all, in words; None if they differ.

    Args:
        task: says whether the answers are labels or numbers.
        logits_BC: the model's answers to B rows.
        labels_B: what is true; of a multi-label task ``[B, C]``.
    """
    if len(labels_B) < _MIN_ROWS:
        return None
    if task.is_regression:
        answers_B, truth = logits_BC[:, 0], float(labels_B.std())
        alike = truth > 0 and float(answers_B.std()) < _MIN_SPREAD * truth
        rows = f"all {len(labels_B)} rows"
        return f"about {float(answers_B.mean()):.3g} for {rows}" if alike else None
    if task.is_multi_label:
        return _constant_labels(task, logits_BC, labels_B)
    answers = np.bincount(logits_BC.argmax(1), minlength=len(task.labels))
    truth_counts = np.bincount(labels_B.astype(np.int64))
    given, count = int(answers.argmax()), int(answers.max())
    varied = truth_counts.max() <= _MAX_TRUE_SHARE * len(labels_B)
    if not varied or count < _NEARLY_ALL * len(labels_B):
        return None
    return f"{task.labels[given]!r} for {count} of {len(labels_B)} rows"


def _constant_labels(
    task: Task, logits_BC: NDArray[np.floating], labels_BC: NDArray[np.floating]
) -> str | None:
    """The labels that nearly all rows of a multi-label task get; None if they differ."""
    given = given_BC(task.decision, task.labels, scores_from(task, logits_BC))
    rows, counts = np.unique(given, axis=0, return_counts=True)
    _, truth_counts = np.unique(labels_BC >= TRUE, axis=0, return_counts=True)
    varied = truth_counts.max() <= _MAX_TRUE_SHARE * len(labels_BC)
    if not varied or counts.max() < _NEARLY_ALL * len(labels_BC):
        return None
    names = [label for label, has in zip(task.labels, rows[counts.argmax()], strict=True) if has]
    labels = ", ".join(map(repr, names)) or "no label"
    return f"{labels} for {counts.max()} of {len(labels_BC)} rows"
