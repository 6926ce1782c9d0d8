"""How the loss to the labels is weighed where some are rare: class weights and focal loss."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.metrics import Label
from spd_deploy.domain.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelLoss:
    """The settings of ``spd_train.training.losses.label_losses``.

    Attributes:
        weights: weight of each label in the order of the task's, above 0; empty for all 1.
        focal_gamma: exponent of the focal loss, 0 or more; 0 is plain cross-entropy.
    """

    weights: tuple[float, ...] = ()
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no loss.

        Raises:
            BadSetting: a weight that is not above 0, or a negative exponent.
        """
        if not all(0 < weight < math.inf for weight in self.weights):
            raise BadSetting(
                "class weights must be above 0", got=self.weights, fix="such as 0.5, 1 or 2"
            )
        if not 0 <= self.focal_gamma < math.inf:
            raise BadSetting(
                "--focal-gamma must be 0 or more", got=self.focal_gamma, fix="such as 2"
            )

    def __bool__(self) -> bool:
        """Whether it is any other than the plain loss."""
        return bool(self.weights) or self.focal_gamma > 0

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**asdict(self), "weights": list(self.weights)}


# The loss without weights: every label of every row counts 1.
PLAIN = LabelLoss()


def balanced_weights(task: Task, labels: Sequence[Label]) -> tuple[float, ...]:
    """Weights by which each label counts as much as the others; of one that no row has it is 1.

    Of one label a row it is ``rows / (labels * rows with the label)``, scikit-learn's ``balanced``
    (King and Zeng, "Logistic Regression in Rare Events Data", 2001). Of several labels it is
    ``rows without the label / rows with it``, PyTorch's ``pos_weight`` of
    ``BCEWithLogitsLoss``, so that rows with and rows without a label count alike.

    Args:
        task: a classification.
        labels: labels of the training rows. Soft ones count by their probabilities.
    """
    count = len(task.labels)
    rows = [one if isinstance(one, tuple) else np.eye(count)[int(one)] for one in labels]
    with_C = np.sum(rows, axis=0)
    others_C = len(rows) - with_C if task.is_multi_label else np.full(count, len(rows) / count)
    usable_C = (with_C > 0) & (others_C > 0)
    weight_C = np.where(usable_C, others_C, 1.0) / np.where(usable_C, with_C, 1.0)
    return tuple(float(f"{weight:.6g}") for weight in weight_C)
