"""Two models' answers to the same labelled rows: where they differ, and what that costs.

A score alone hides where a sparse model differs from its dense one: a label, a length of text or a
source may lose much while the mean keeps. Scores of the two are compared row by row, so the
interval of their difference is narrower than that of each.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.metrics import TRUE, given_labels_BC, scores_of
from spd_deploy.domain.ordinal import nearest
from spd_deploy.domain.tasks import Activation, Task
from spd_deploy.domain.temperature import error_of, is_calibrated_by_temperature

_RESAMPLES = 400
_LENGTH_PARTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedAnswers:
    """The answers of a dense and a sparse model to B rows.

    Attributes:
        task: of both models.
        dense_BC: logits of the dense model.
        sparse_BC: logits of the sparse model.
        labels_B: index of the true label, or the true number; of a multi-label task ``[B, C]``, 1
            for each label that a row has.
        tokens_B: length of each row in tokens.
        groups: group of each row; empty without groups.
    """

    task: Task
    dense_BC: NDArray[np.float64]
    sparse_BC: NDArray[np.float64]
    labels_B: NDArray[np.float64]
    tokens_B: NDArray[np.int64]
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_B)

    def only(self, rows: NDArray[np.integer]) -> Self:
        """The answers to some rows, by their numbers from 0."""
        return replace(
            self,
            dense_BC=self.dense_BC[rows],
            sparse_BC=self.sparse_BC[rows],
            labels_B=self.labels_B[rows],
            tokens_B=self.tokens_B[rows],
            groups=tuple(self.groups[i] for i in rows) if self.groups else (),
        )

    @property
    def distances_B(self) -> NDArray[np.float64]:
        """Distance of the two models' scores: for labels in [0, 1], for numbers in their unit.

        Of probabilities it is the total variation, half the sum of absolute differences.
        """
        difference = np.abs(scores_from(self.task, self.dense_BC) - self._sparse_scores_BC)
        softmax = self.task.activation is Activation.SOFTMAX
        return np.asarray(difference.sum(1) / 2 if softmax else difference.max(1))

    @property
    def changed_B(self) -> NDArray[np.bool_]:
        """Rows to which the models give another label, or others; none for a regression."""
        if not self.task.names:
            return np.zeros(len(self), dtype=np.bool_)
        return np.asarray((self.given(self.dense_BC) != self.given(self.sparse_BC)).any(1))

    def given(self, logits_BC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which labels each row gets, ``[B, C]``."""
        return given_labels_BC(self.task, logits_BC)

    def right_B(self, logits_BC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Rows that get their true label, or all of their labels and no other."""
        return np.asarray((self.given(logits_BC) == self.true_BC).all(1))

    @property
    def true_BC(self) -> NDArray[np.bool_]:
        """Which labels each row has."""
        if self.task.is_multi_label:
            return np.asarray(self.labels_B >= TRUE)
        ordinal = self.task.ordinal
        true_B = nearest(ordinal, self.labels_B) if ordinal else self.labels_B
        return np.asarray(true_B[:, None] == np.arange(len(self.task.names)))

    @property
    def _sparse_scores_BC(self) -> NDArray[np.float64]:
        """Scores of the sparse model."""
        return scores_from(self.task, self.sparse_BC)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartScores:
    """Both models on a part of the rows.

    Attributes:
        name: the part: a label, a range of tokens, or a group.
        rows: number of rows.
        dense: accuracy of the dense model, of several labels the share of rows that get all of
            them and no other; for a regression the task's first metric. None where it is undefined.
        sparse: the same of the sparse model.
        changed: rows with another label; 0 for a regression.
        distance: mean distance of the scores.
    """

    name: str
    rows: int
    dense: float | None
    sparse: float | None
    changed: int
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerComparison:
    """The comparison of a sparse model's answers with its dense model's.

    Attributes:
        rows: number of rows.
        dense: the task's metrics of the dense model; None marks an undefined one.
        sparse: the same of the sparse model.
        interval: 95 % interval of sparse minus dense in the first metric, by the paired bootstrap;
            None where a resample has no defined metric.
        fixed: rows that the sparse model alone answers rightly; 0 for a regression.
        broken: rows that the dense model alone answers rightly; 0 for a regression.
        changed: rows to which they answer another label; 0 for a regression.
        distance: mean distance of the scores.
        calibration: of the dense and of the sparse model; None for a regression.
        parts: the parts of the rows by what they are divided by: ``label``, ``tokens``, ``group``.
    """

    rows: int
    dense: Mapping[str, float | None]
    sparse: Mapping[str, float | None]
    interval: tuple[float, float] | None
    fixed: int
    broken: int
    changed: int
    distance: float
    calibration: tuple[CalibrationError, CalibrationError] | None
    parts: Mapping[str, tuple[PartScores, ...]]


def compare_answers(answers: PairedAnswers) -> AnswerComparison:
    """Compare two models over all rows, and over the rows of each label, length and group."""
    task = answers.task
    dense = scores_of(task, answers.dense_BC, answers.labels_B.tolist())
    sparse = scores_of(task, answers.sparse_BC, answers.labels_B.tolist())
    fixed, broken = _fixed_and_broken(answers)
    return AnswerComparison(
        rows=len(answers),
        dense={name: _defined(value) for name, value in dense.items()},
        sparse={name: _defined(value) for name, value in sparse.items()},
        interval=_interval(answers),
        fixed=fixed,
        broken=broken,
        changed=int(answers.changed_B.sum()),
        distance=float(answers.distances_B.mean()),
        calibration=_calibration(answers),
        parts={
            by: tuple(_part(name, answers.only(rows)) for name, rows in division)
            for by, division in _divisions(answers)
        },
    )


def largest_distances(answers: PairedAnswers, count: int) -> list[int]:
    """Numbers (from 0) of the rows whose scores differ most, the largest distance first.

    Rows with another label come before the others.
    """
    order = np.lexsort((-answers.distances_B, ~answers.changed_B))
    return [int(row) for row in order[:count]]


def _fixed_and_broken(answers: PairedAnswers) -> tuple[int, int]:
    """Rows that only the sparse, and that only the dense model answers rightly."""
    if not answers.task.names:
        return 0, 0
    dense_B, sparse_B = answers.right_B(answers.dense_BC), answers.right_B(answers.sparse_BC)
    return int((sparse_B & ~dense_B).sum()), int((dense_B & ~sparse_B).sum())


def _calibration(answers: PairedAnswers) -> tuple[CalibrationError, CalibrationError] | None:
    """Calibration of both models; None where the scores are no probabilities of labels."""
    if not is_calibrated_by_temperature(answers.task):
        return None
    dense, sparse = (
        error_of(answers.task, logits_BC, answers.labels_B)
        for logits_BC in (answers.dense_BC, answers.sparse_BC)
    )
    return dense, sparse


def _interval(answers: PairedAnswers) -> tuple[float, float] | None:
    """95 % interval of sparse minus dense in the first metric (Efron and Tibshirani, 1993)."""
    draw = np.random.default_rng(0)
    differences = []
    for _ in range(_RESAMPLES):
        drawn = answers.only(draw.integers(len(answers), size=len(answers)))
        differences.append(_headline(drawn, drawn.sparse_BC) - _headline(drawn, drawn.dense_BC))
    if not np.isfinite(differences).all():
        return None
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def _headline(answers: PairedAnswers, logits_BC: NDArray[np.float64]) -> float:
    """The task's first metric."""
    task = replace(answers.task, metrics=answers.task.metrics[:1])
    (value,) = scores_of(task, logits_BC, answers.labels_B.tolist()).values()
    return value


def _divisions(
    answers: PairedAnswers,
) -> Iterator[tuple[str, list[tuple[str, NDArray[np.integer]]]]]:
    """The ways to divide the rows, with the name and the row numbers of each part."""
    if answers.task.names:
        true_BC = answers.true_BC
        labels = enumerate(answers.task.names)
        named = [(label, np.flatnonzero(true_BC[:, i])) for i, label in labels]
        yield "label", [(label, rows) for label, rows in named if len(rows)]
    yield "tokens", list(_by_length(answers.tokens_B))
    if answers.groups:
        groups = np.array(answers.groups)
        yield "group", [(str(g), np.flatnonzero(groups == g)) for g in np.unique(groups)]


def _by_length(tokens_B: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.integer]]]:
    """Quarters of the rows by their length; fewer parts where many rows are equally long."""
    inner = np.quantile(tokens_B, np.arange(1, _LENGTH_PARTS) / _LENGTH_PARTS, method="lower")
    ends = sorted({*inner.astype(int).tolist(), int(tokens_B.max())})
    start = int(tokens_B.min())
    for end in ends:
        rows = np.flatnonzero((tokens_B >= start) & (tokens_B <= end))
        if len(rows):
            yield f"{start} to {end}" if start < end else f"{end}", rows
        start = end + 1


def _part(name: str, answers: PairedAnswers) -> PartScores:
    """Both models on some rows."""
    return PartScores(
        name=name,
        rows=len(answers),
        dense=_part_score(answers, answers.dense_BC),
        sparse=_part_score(answers, answers.sparse_BC),
        changed=int(answers.changed_B.sum()),
        distance=float(answers.distances_B.mean()),
    )


def _part_score(answers: PairedAnswers, logits_BC: NDArray[np.float64]) -> float | None:
    """Accuracy, or the first metric of a regression; None where it is undefined."""
    if not answers.task.names:
        return _defined(_headline(answers, logits_BC))
    return float(answers.right_B(logits_BC).mean())


def _defined(value: float) -> float | None:
    """The value, or None for NaN."""
    return value if math.isfinite(value) else None


def parts_metric(task: Task) -> str:
    """The name of the metric of :class:`PartScores`."""
    return "accuracy" if task.names else task.metrics[0]
