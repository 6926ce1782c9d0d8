"""A model that gives every row the same answer is found out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.collapse import constant_answer
from spd_deploy.domain.metrics import scores_of
from spd_deploy.domain.tasks import task_named

SENTIMENT = task_named("sst2")
RATING = task_named("stsb")


def logits_for(answers: list[int]) -> np.ndarray:
    """Logits whose largest is that of each answer."""
    return np.eye(2, dtype=np.float32)[answers]


def test_the_same_label_for_all_rows_is_named() -> None:
    """The label and the numbers of rows stand in the words, though its accuracy is 0.9."""
    truth = np.array([0.0] * 90 + [1.0] * 10)
    logits = logits_for([0] * 100)

    assert scores_of(SENTIMENT, logits, truth.tolist())["accuracy"] == pytest.approx(0.9)
    assert constant_answer(SENTIMENT, logits, truth) == "'negative' for 100 of 100 rows"


@given(st.lists(st.integers(0, 1), min_size=20, max_size=200))
def test_right_answers_are_never_a_collapse(truth: list[int]) -> None:
    """A perfect model is not accused, whatever the labels are."""
    assert constant_answer(SENTIMENT, logits_for(truth), np.array(truth, float)) is None


def test_a_nearly_constant_model_is_found_too() -> None:
    """Two other answers of 200 teach nothing more."""
    truth = np.array([0.0, 1.0] * 100)
    assert constant_answer(SENTIMENT, logits_for([0] * 198 + [1] * 2), truth) is not None
    assert constant_answer(SENTIMENT, logits_for([0] * 190 + [1] * 10), truth) is None


def test_a_few_rows_prove_nothing() -> None:
    """Equal answers to 19 rows may be chance."""
    assert constant_answer(SENTIMENT, logits_for([0] * 19), np.array([0.0, 1.0] * 9 + [1])) is None


@pytest.mark.parametrize(("spread", "found"), [(0.001, True), (1.0, False)])
def test_a_regression_answers_numbers(spread: float, found: bool) -> None:
    """A number that hardly moves is a constant answer, and is told in words."""
    truth = np.linspace(0, 5, 100)
    answers = constant_answer(RATING, (2.5 + spread * (truth[:, None] - 2.5)), truth)

    assert answers == ("about 2.5 for all 100 rows" if found else None)
