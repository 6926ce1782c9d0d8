"""From scores to the labels that are given: a threshold for a label, and when to give none.

Without thresholds a classifier gives the label with the largest score. A threshold for a label
replaces that rule for this label: it is given where its score reaches the threshold, and not given
elsewhere, whatever the other scores are (one label against the rest). Of several labels that reach
theirs the one with the largest score is given. Where none does, the largest score among the labels
without a threshold counts.

Of a multi-label classifier every label has a threshold, 0.5 if it has no other, and every label
that reaches its own is given.

A classifier with ``abstain_below`` gives no label where the score of the label that it would give
is smaller. It also gives none where every label has a threshold and none is reached.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import BadSetting

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """The smallest score at which a label is given, and what it was chosen for.

    Attributes:
        value: the score, in [0, 1].
        goal: what was asked for, such as ``precision=0.95``; None where the value was given.
        precision: share of the rows given the label that have it, on the rows it was chosen on.
        recall: share of the rows that have the label that were given it.
        rows: number of rows that it was chosen on.
        positives: number of those that have the label.
    """

    value: float
    goal: str | None = None
    precision: float | None = None
    recall: float | None = None
    rows: int = 0
    positives: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no score.

        Raises:
            BadSetting: a number outside of [0, 1].
        """
        _refuse_no_score(self.value, "a threshold")

    def __str__(self) -> str:
        """The value, and how precision and recall were where it was chosen."""
        if self.goal is None or self.precision is None or self.recall is None:
            return f"{self.value:.3f}"
        return (
            f"{self.value:.3f} for {self.goal}: precision {self.precision:.3f}, recall "
            f"{self.recall:.3f} on {self.rows} rows, {self.positives} of them positive"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """How labels follow from scores.

    Attributes:
        thresholds: by label.
        abstain_below: smallest score of a label that is given; None: a label is always given.
    """

    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    abstain_below: float | None = None

    def __post_init__(self) -> None:
        """Refuse a bound that is no score.

        Raises:
            BadSetting: a number outside of [0, 1].
        """
        if self.abstain_below is not None:
            _refuse_no_score(self.abstain_below, "--abstain-below")

    @classmethod
    def from_json(cls, value: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """The decision in a JSON object, for these labels.

        Raises:
            BadSetting: a threshold is for another label, or no score.
        """
        found = {name: Threshold(**one) for name, one in value.get("thresholds", {}).items()}
        decision = cls(thresholds=found, abstain_below=value.get("abstain_below"))
        decision.refuse_other_labels(labels)
        return decision

    def __bool__(self) -> bool:
        """Whether it is any other than the label with the largest score."""
        return bool(self.thresholds) or self.abstain_below is not None

    def values(self, labels: Sequence[str]) -> list[float | None]:
        """The threshold of each label in order; None for a label without one."""
        found = (self.thresholds.get(label) for label in labels)
        return [None if one is None else one.value for one in found]

    def refuse_other_labels(self, labels: Sequence[str]) -> None:
        """Refuse a threshold for a label that the model does not have.

        Raises:
            BadSetting: with the label.
        """
        if other := [label for label in self.thresholds if label not in labels]:
            raise BadSetting(
                "a threshold is for a label that the model does not have",
                got=other[0],
                fix=f"name one of {', '.join(labels[:20]) or 'none: it answers a number'}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """The labels that are given for one text, by their number among the model's outputs.

    Attributes:
        given: the label, or of a multi-label classifier all that reach their thresholds, by number.
        best: the label that is given or, where the model abstains, that would be.
        abstained: whether no label is given since the score is too small.
    """

    given: tuple[int, ...]
    best: int
    abstained: bool = False


def decide_one(decision: Decision, labels: Sequence[str], scores_C: Sequence[float]) -> Decided:
    """The one label of a text, or none where the classifier abstains.

    Args:
        decision: thresholds and the bound to abstain.
        labels: the labels in the order of the scores.
        scores_C: the score of each label. Of equal scores the first counts.
    """
    numbers = range(len(scores_C))
    if not decision.thresholds:
        best, reached = max(numbers, key=lambda i: (scores_C[i], -i)), True
    else:
        limits = decision.values(labels)
        over = [i for i in numbers if _reaches(scores_C[i], limits[i])]
        open_ = [i for i in numbers if limits[i] is None]
        reached = bool(over or open_)
        best = max(over or open_ or numbers, key=lambda i: (scores_C[i], -i))
    below = decision.abstain_below
    abstained = not reached or (below is not None and scores_C[best] < below)
    return Decided(given=() if abstained else (best,), best=best, abstained=abstained)


def decide_many(decision: Decision, labels: Sequence[str], scores_C: Sequence[float]) -> Decided:
    """Every label of a text whose score reaches its threshold, the largest score first."""
    limits = _limits_of_all(decision, labels)
    numbers = range(len(scores_C))
    over = [i for i in numbers if scores_C[i] >= limits[i]]
    best = max(numbers, key=lambda i: (scores_C[i], -i))
    return Decided(given=tuple(sorted(over, key=lambda i: -scores_C[i])), best=best)


def chosen_B(
    decision: Decision, labels: Sequence[str], scores_BC: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The number of the label that each of B texts gets, before any abstention."""
    if not decision.thresholds:
        return np.asarray(scores_BC.argmax(1), dtype=np.int64)
    limits_C = np.array([math.nan if v is None else v for v in decision.values(labels)])
    open_C = np.isnan(limits_C)
    over_BC = scores_BC >= np.where(open_C, math.inf, limits_C)
    any_over_B1 = over_BC.any(1, keepdims=True)
    rest_C = open_C if open_C.any() else np.ones_like(open_C)
    eligible_BC = np.where(any_over_B1, over_BC, rest_C[None, :])
    return np.asarray(np.where(eligible_BC, scores_BC, -1.0).argmax(1), dtype=np.int64)


def given_BC(
    decision: Decision, labels: Sequence[str], scores_BC: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which labels each of B texts gets from a multi-label classifier."""
    return np.asarray(scores_BC >= np.array(_limits_of_all(decision, labels)))


def _limits_of_all(decision: Decision, labels: Sequence[str]) -> list[float]:
    """The threshold of each label of a multi-label classifier."""
    return [DEFAULT_THRESHOLD if v is None else v for v in decision.values(labels)]


def _reaches(score: float, limit: float | None) -> bool:
    """Whether a label has a threshold and its score reaches it."""
    return limit is not None and score >= limit


def _refuse_no_score(value: float, what: str) -> None:
    """Refuse a number that no score can be."""
    if not 0 <= value <= 1:
        raise BadSetting(f"{what} must be a score from 0 to 1", got=value, fix="such as 0.8")
