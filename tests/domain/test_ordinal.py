"""Labels with an order: which label is nearest to a number, and what such answers score."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from spd_deploy.domain.answers import answers_of, decided_of
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.metrics import led_by, scores_of
from spd_deploy.domain.ordinal import nearest, places_of
from spd_deploy.domain.paired_answers import PairedAnswers, compare_answers
from spd_deploy.domain.tasks import Task, own_task

LABELS = st.one_of(
    st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True).map(
        lambda numbers: tuple(map(str, sorted(numbers)))
    ),
    st.just(("low", "medium", "high")),
)


def task_of(*labels: str) -> Task:
    return own_task(text_column="t", pair_column=None, label_column="y", labels=(), ordinal=labels)


@given(labels=LABELS, number=st.floats(-60, 60))
def test_the_nearest_label_has_the_smallest_distance(
    labels: tuple[str, ...], number: float
) -> None:
    """Numbers stand at their value and words at 0, 1, 2; half-way is rounded up."""
    places = places_of(labels)

    found = int(nearest(labels, number))

    distances = [abs(place - number) for place in places]
    assert distances[found] == pytest.approx(min(distances))
    if labels[0] != "low":
        assert places == tuple(map(float, labels))
    middle = (places[0] + places[1]) / 2
    assert int(nearest(labels, middle)) == 1


def test_a_number_is_told_as_its_label() -> None:
    """With the number as its score; the label is given, and survives JSON."""
    task = Task.from_json(json.loads(json.dumps(task_of("low", "medium", "high").to_json())))
    logits = np.array([1.4], np.float32)

    (answer,) = answers_of(task, logits)

    assert (answer.label, answer.index) == ("medium", 0)
    assert answer.score == pytest.approx(1.4)
    assert decided_of(task, logits).given == (0,)
    assert (task.outputs, task.labels, task.names) == (1, (), ("low", "medium", "high"))


def test_ordered_labels_are_scored_as_scikit_learn_does() -> None:
    """Accuracy, weighted kappa and mean absolute error of the labels that are given."""
    draw = np.random.default_rng(0)
    truth = draw.integers(1, 6, 60).astype(float)
    numbers = truth + draw.normal(size=60)
    rounded = np.clip(np.round(numbers), 1, 5)

    found = scores_of(task_of(*"12345"), numbers[:, None], truth.tolist())

    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, rounded),
            "quadratic_kappa": metrics.cohen_kappa_score(truth, rounded, weights="quadratic"),
            "mean_absolute_error": metrics.mean_absolute_error(truth, rounded),
        }
    )


def test_no_error_is_a_metric_to_choose_by() -> None:
    """The mean absolute error is better the smaller it is, so it chooses no checkpoint."""
    task = task_of("1", "2", "3")

    assert task.chosen_by == ("accuracy",)
    assert led_by(task, "pearson").metrics[0] == "pearson"
    with pytest.raises(BadSetting, match="use accuracy, quadratic_kappa, macro_f1, pearson"):
        led_by(task, "mean_absolute_error")


def test_constant_answers_have_no_kappa_but_no_crash() -> None:
    """One label for all rows that all have it."""
    found = scores_of(task_of("1", "2"), np.ones((3, 1)), [1.0, 1.0, 1.0])

    assert found["accuracy"] == 1.0 and math.isnan(found["quadratic_kappa"])


def test_two_models_are_compared_by_the_labels_they_give() -> None:
    """A number that moves past a bound is another label; one that does not is none."""
    truth = np.array([1.0, 2.0, 3.0, 3.0])
    dense, sparse = truth + 0.4, truth + np.array([0.0, 0.6, -0.6, 0.3])
    answers = PairedAnswers(
        task=task_of("1", "2", "3"),
        dense_BC=dense[:, None],
        sparse_BC=sparse[:, None],
        labels_B=truth,
        tokens_B=np.array([3, 4, 5, 6]),
    )

    found = compare_answers(answers)

    assert (found.changed, found.broken, found.fixed) == (2, 2, 0)
    assert [(part.name, part.rows, part.sparse) for part in found.parts["label"]] == [
        ("1", 1, 1.0),
        ("2", 1, 0.0),
        ("3", 2, 0.5),
    ]
