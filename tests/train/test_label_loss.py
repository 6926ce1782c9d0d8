"""Class weights: what balanced ones are, and which are refused."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from spd_deploy.cli.options.label_options import label_loss_of, weights_in
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.metrics import Label
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import TASKS, Task, own_task
from spd_train.data.examples import Example
from spd_train.label_loss import LabelLoss, balanced_weights


def task_of(*labels: str, separator: str | None = None) -> Task:
    return own_task(
        text_column="t", pair_column=None, label_column="y", labels=labels, separator=separator
    )


def test_balanced_weights_are_scikit_learns() -> None:
    """Of one label a row; a label without a row counts 1; probabilities count by their share."""
    labels = [0, 0, 0, 2, 0, 2]

    found = balanced_weights(task_of("a", "b", "c"), labels)

    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=np.array(labels))
    assert found[::2] == pytest.approx(expected * 2 / 3, abs=1e-5) and found[1] == 1
    soft: list[Label] = [(0.5, 0.5), 1, (0.5, 0.5), 1]
    assert balanced_weights(task_of("a", "b"), soft) == pytest.approx((2, 2 / 3), abs=1e-5)


def test_balanced_weights_of_several_labels_are_torchs_pos_weight() -> None:
    """Rows without the label over rows with it; where there are none of either it is 1."""
    labels = [(1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0)]

    assert balanced_weights(task_of("a", "b", "c", separator="|"), labels) == (3, 1, 1)


def test_weights_are_read_from_a_text_and_from_a_file(tmp_path: Path) -> None:
    """A label may hold an equals sign; labels that are not named count 1."""
    file = tmp_path / "weights.json"
    file.write_text('{"a": 2}')

    assert weights_in("a = 2, b==1") == {"a": 2.0, "b=": 1.0}
    options = {"class_weights": str(file), "focal_gamma": 2.0}
    found = label_loss_of(options, task_of("a", "b"), [], Silent())
    assert found == LabelLoss(weights=(2.0, 1.0), focal_gamma=2.0)


@pytest.mark.parametrize(
    ("weights", "gamma", "task", "said"),
    [
        ("a=x", None, task_of("a", "b"), "no weight of a label; got 'a=x'"),
        ("a=2,b", None, task_of("a", "b"), "no weight of a label; got 'b'"),
        ("c=2", None, task_of("a", "b"), "does not have; got 'c'; name one of a, b"),
        ("a=0", None, task_of("a", "b"), "must be above 0"),
        ("nothing.json", None, task_of("a", "b"), "nothing.json"),
        ("balanced", None, TASKS["stsb"], "no labels to weigh; got --class-weights"),
        (None, 2.0, TASKS["stsb"], "no labels to weigh; got --focal-gamma"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_weights_that_make_no_loss_are_refused(
    weights: str | None, gamma: float | None, task: Task, said: str
) -> None:
    """With what was found in their place."""
    rows = [Example(text="t", label=0.0)]

    with pytest.raises(BadSetting, match=said):
        label_loss_of({"class_weights": weights, "focal_gamma": gamma}, task, rows, Silent())
