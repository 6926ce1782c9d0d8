"""How much better a classifier's labels are where it gives none for the texts that it doubts.

Coverage is the share of the texts that get a label, and selective accuracy that of the right ones
among them (El-Yaniv and Wiener, 2010).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.metrics import labels_given
from spd_deploy.domain.tasks import ProblemType, Task

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """The rows that are answered without scores below a bound, and their accuracy.

    Attributes:
        below: answers with a smaller score are left out.
        coverage: share of the rows that are answered.
        accuracy: share of right ones among them; None where none is answered.
    """

    below: float
    coverage: float
    accuracy: float | None


def coverage_of(
    task: Task,
    logits_BC: NDArray[np.floating],
    truth_B: NDArray[np.floating],
    *,
    also: Iterable[float] = (),
) -> tuple[Coverage, ...]:
    """Coverage and accuracy at several scores, the smallest first.

    Only a classifier of one label abstains: for others there is none.

    Args:
        task: of the labels.
        logits_BC: what the model answers.
        truth_B: index of each row's label.
        also: scores beside the usual ones.
    """
    if task.problem_type is not ProblemType.SINGLE_LABEL:
        return ()
    given_B = labels_given(task, logits_BC)
    score_B = np.take_along_axis(scores_from(task, logits_BC), given_B[:, None], 1)[:, 0]
    right_B = given_B == truth_B
    bounds = {0.0, *_LEVELS, *also}
    if task.decision.abstain_below is not None:
        bounds.add(task.decision.abstain_below)
    return tuple(_at(bound, score_B, right_B) for bound in sorted(bounds))


def _at(below: float, score_B: NDArray[np.float64], right_B: NDArray[np.bool_]) -> Coverage:
    """Coverage and accuracy without the answers below a score."""
    kept = score_B >= below
    accuracy = float(right_B[kept].mean()) if kept.any() else None
    return Coverage(below=below, coverage=float(kept.mean()), accuracy=accuracy)
