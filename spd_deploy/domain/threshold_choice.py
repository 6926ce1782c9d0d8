"""The threshold of a label that reaches a precision or a recall on labelled rows.

spam:precision=0.95     the largest recall with a precision of 0.95 or more
spam:recall=0.9         the largest precision with a recall of 0.9 or more
spam:f1                 the largest F1
*:f1                    the same for every label
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.decision import Threshold
from spd_deploy.domain.errors import BadData, BadSetting

Measure = Literal["precision", "recall", "f1"]
ALL_LABELS = "*"
_FORM = "write LABEL:precision=0.95, LABEL:recall=0.9 or LABEL:f1, with a label of the model"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdGoal:
    """The goal of a label's threshold: a precision, a recall, or the largest F1.

    Attributes:
        label: the label; ``*`` stands for every one.
        measure: what is bounded, or made as large as it can be.
        value: its smallest value, in (0, 1]; None for F1.
    """

    label: str
    measure: Measure
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The goal that a text such as ``spam:precision=0.95`` spells; the label may hold colons.

        Raises:
            BadSetting: it spells none.
        """
        label, colon, goal = text.rpartition(":")
        measure, equals, number = goal.partition("=")
        wrong = BadSetting("--threshold-for is not understood", got=repr(text), fix=_FORM)
        if not (label and colon) or measure not in get_args(Measure):
            raise wrong
        if measure == "f1":
            if equals:
                raise wrong
            return cls(label=label, measure="f1")
        try:
            value = float(number)
        except ValueError as err:
            raise wrong from err
        if not 0 < value <= 1:
            raise BadSetting(
                f"the {measure} of --threshold-for must be above 0 and at most 1",
                got=repr(text),
                fix=_FORM,
            )
        return cls(
            label=label, measure="precision" if measure == "precision" else "recall", value=value
        )

    def __str__(self) -> str:
        """The goal without its label."""
        return self.measure if self.value is None else f"{self.measure}={self.value:g}"

    def labels(self, known: Sequence[str]) -> Sequence[str]:
        """The labels that it is for.

        Raises:
            BadSetting: the model has no such label.
        """
        if self.label in known:
            return (self.label,)
        if self.label == ALL_LABELS:
            return known
        raise BadSetting(
            "--threshold-for names a label that the model does not have",
            got=repr(self.label),
            fix=f"name one of {', '.join(known[:20])}, or {ALL_LABELS} for all",
        )


def choose_threshold(
    goal: ThresholdGoal, label: str, scores_B: NDArray[np.float64], has_B: NDArray[np.bool_]
) -> Threshold:
    """The threshold of one label that reaches a goal on labelled rows.

    It lies half-way between two scores that occur, so that a small difference of a score in another
    runtime changes no row that it was chosen on.

    Args:
        goal: what it must reach.
        label: the label.
        scores_B: its score in each row.
        has_B: whether the row has it.

    Raises:
        BadData: no row has the label or all have it, or no threshold reaches the goal.
    """
    positives = int(has_B.sum())
    if positives in (0, len(has_B)):
        raise BadData(
            f"the threshold of {label!r} needs rows that have the label and rows that do not",
            got=f"{positives} of {len(has_B)} rows have it",
            fix="name more labelled rows with --data",
        )
    order = np.argsort(-scores_B, kind="stable")
    scores, hits = scores_B[order], np.cumsum(has_B[order])
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are on one side
    precision, recall = hits / np.arange(1, len(scores) + 1), hits / positives
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    match goal.measure:
        case "precision":
            reached, best = precision >= (goal.value or 0), recall
        case "recall":
            reached, best = recall >= (goal.value or 0), precision
        case "f1":
            reached, best = np.ones_like(last), f1
    eligible = np.flatnonzero(last & reached & (hits > 0))
    if not len(eligible):
        raise BadData(
            f"no threshold of {label!r} reaches {goal} on these {len(has_B)} rows",
            got=f"{goal.measure} {precision[last].max():.3f} at most",
            fix="ask for less, or train a better model",
        )
    at = int(eligible[best[eligible].argmax()])
    below = float(scores[at + 1]) if at + 1 < len(scores) else float(scores[at])
    return Threshold(
        value=(float(scores[at]) + below) / 2,
        goal=str(goal),
        precision=float(precision[at]),
        recall=float(recall[at]),
        rows=len(has_B),
        positives=positives,
    )
