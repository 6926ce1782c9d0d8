"""Two models are compared row by row, and part by part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss

from spd_deploy.domain.calibration_error import calibration_error
from spd_deploy.domain.paired_answers import PairedAnswers, compare_answers, largest_distances
from spd_deploy.domain.tasks import task_named

SENTIMENT = task_named("sst2")
RATING = task_named("stsb")


def answers(seed: int, rows: int = 60, *, noise: float = 1.0) -> PairedAnswers:
    """Random answers; the sparse model's are the dense model's with noise."""
    draw = np.random.default_rng(seed)
    dense_BC = draw.normal(size=(rows, 2))
    return PairedAnswers(
        task=SENTIMENT,
        dense_BC=dense_BC,
        sparse_BC=dense_BC + noise * draw.normal(size=(rows, 2)),
        labels_B=draw.integers(0, 2, rows).astype(float),
        tokens_B=draw.integers(3, 40, rows),
        groups=tuple(draw.choice(["news", "forum", "book"], rows)),
    )


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_the_parts_of_a_division_make_up_the_whole(seed: int) -> None:
    """Rows, changed answers and right answers of the parts add up, whatever divides them."""
    given_answers = answers(seed)
    found = compare_answers(given_answers)

    assert found.parts.keys() == {"label", "tokens", "group"}
    for parts in found.parts.values():
        assert sum(part.rows for part in parts) == found.rows == 60
        assert sum(part.changed for part in parts) == found.changed
        right = sum(part.rows * (part.sparse or 0.0) for part in parts)
        assert right == pytest.approx(60 * (found.sparse["accuracy"] or 0.0))


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_fixed_and_broken_rows_explain_the_difference(seed: int) -> None:
    """Sparse minus dense accuracy is what was fixed less what was broken, a share of all rows."""
    found = compare_answers(answers(seed))
    dense, sparse = found.dense["accuracy"] or 0.0, found.sparse["accuracy"] or 0.0

    assert sparse - dense == pytest.approx((found.fixed - found.broken) / found.rows)
    assert found.interval is not None
    assert found.interval[0] <= sparse - dense + 0.05
    assert found.interval[1] >= sparse - dense - 0.05


def test_a_model_does_not_differ_from_itself() -> None:
    """All distances are zero, and the interval is a point."""
    found = compare_answers(answers(0, noise=0.0))

    assert (found.changed, found.fixed, found.broken, found.distance) == (0, 0, 0, 0.0)
    assert found.interval == (0.0, 0.0)
    assert found.calibration is not None and found.calibration[0] == found.calibration[1]


def test_the_rows_that_differ_most_come_first() -> None:
    """Changed labels come first, and of equal kind the larger distance."""
    given_answers = answers(3)
    rows = largest_distances(given_answers, 60)
    changed = given_answers.changed_B[rows]
    distances = given_answers.distances_B[rows]

    assert sorted(rows) == list(range(60))
    assert changed.tolist() == sorted(changed.tolist(), reverse=True)
    count = int(changed.sum())
    assert (np.diff(distances[:count]) <= 0).all() and (np.diff(distances[count:]) <= 0).all()


def test_numbers_are_compared_by_the_task_metric() -> None:
    """Of a regression no label changes, and a part has its own correlation."""
    draw = np.random.default_rng(0)
    truth = draw.uniform(0, 5, 80)
    found = compare_answers(
        PairedAnswers(
            task=RATING,
            dense_BC=truth[:, None],
            sparse_BC=(5 - truth)[:, None],
            labels_B=truth,
            tokens_B=draw.integers(3, 40, 80),
        )
    )

    assert (found.changed, found.calibration) == (0, None)
    assert found.dense["pearson"] == pytest.approx(1) and found.sparse["pearson"] == pytest.approx(
        -1
    )
    assert all(part.sparse == pytest.approx(-1) for part in found.parts["tokens"])
    assert found.distance == pytest.approx(np.abs(5 - 2 * truth).mean())


@given(st.integers(0, 1000))
def test_calibration_agrees_with_the_definitions(seed: int) -> None:
    """The Brier score is scikit-learn's, and the calibration error a loop over the bins."""
    draw = np.random.default_rng(seed)
    scores_BC = draw.dirichlet((1.0, 1.0), 200)
    labels_B = draw.integers(0, 2, 200)
    found = calibration_error(scores_BC, labels_B)

    assert found.brier == pytest.approx(2 * brier_score_loss(labels_B, scores_BC[:, 1]))
    confidence, answered = scores_BC.max(1), scores_BC.argmax(1)
    gap = 0.0
    for low in np.arange(15) / 15:
        rows = (confidence >= low) & (confidence < low + 1 / 15)
        if rows.any():
            right = accuracy_score(labels_B[rows], answered[rows])
            gap += rows.sum() * abs(confidence[rows].mean() - right)
    assert found.expected == pytest.approx(gap / 200)


def test_a_sure_model_that_is_right_is_calibrated() -> None:
    """Probabilities of 1 have no error where right, and the largest where wrong."""
    truth = np.array([0, 1, 1, 0])
    right = calibration_error(np.eye(2)[truth], truth)
    wrong = calibration_error(np.eye(2)[1 - truth], truth)

    assert (right.expected, right.brier, right.confidence) == (0.0, 0.0, 1.0)
    assert (wrong.expected, wrong.brier) == (1.0, 2.0)
