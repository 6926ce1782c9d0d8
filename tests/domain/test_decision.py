"""Thresholds and abstention: which labels follow from scores, and how thresholds are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score, recall_score

from spd_deploy.domain.answers import decided_of, scores_from
from spd_deploy.domain.decision import Decision, Threshold, chosen_B, given_BC
from spd_deploy.domain.errors import BadCheckpoint, BadData, BadSetting
from spd_deploy.domain.tasks import ProblemType, Task, task_named
from spd_deploy.domain.threshold_choice import ThresholdGoal, choose_threshold

MNLI, SST2 = task_named("mnli"), task_named("sst2")
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3)
LIMITS = st.dictionaries(st.sampled_from(MNLI.labels), st.floats(0, 1), max_size=3)


def with_decision(task: Task, below: float | None = None, **thresholds: float) -> Task:
    found = {name: Threshold(value=value) for name, value in thresholds.items()}
    return replace(task, decision=Decision(thresholds=found, abstain_below=below))


@given(LOGITS, LIMITS)
def test_one_row_and_many_rows_get_the_same_label(logits: list[float], limits: dict) -> None:  # type: ignore[type-arg]
    """What a server decides for a row is what an evaluation decides for all rows."""
    task = with_decision(MNLI, **limits)
    logits_C = np.array(logits, np.float32)
    scores = scores_from(task, logits_C[None])
    several = replace(task, problem_type=ProblemType.MULTI_LABEL)

    one = decided_of(task, logits_C)
    many = decided_of(several, logits_C)

    close = np.abs(scores[0][:, None] - np.array([*limits.values(), *scores[0]])[None]) < 1e-9
    ties = close.sum() > len(scores[0])
    assert ties or one.best == chosen_B(task.decision, task.labels, scores)[0]
    expected = given_BC(task.decision, task.labels, scores_from(several, logits_C[None]))[0]
    near = np.abs(scores_from(several, logits_C[None])[0] - 0.5) < 1e-9
    limits_near = any(
        abs(s - v) < 1e-9 for s in scores_from(several, logits_C[None])[0] for v in limits.values()
    )
    assert near.any() or limits_near or set(many.given) == set(np.flatnonzero(expected))


@given(LOGITS)
def test_without_thresholds_the_largest_score_counts(logits: list[float]) -> None:
    """The label is the arg-max, whatever the scores are."""
    assert decided_of(MNLI, np.array(logits, np.float32)).best == int(
        np.argmax(np.array(logits, np.float32))
    )


def test_a_threshold_decides_for_its_label_alone() -> None:
    """A label is given from its threshold on, though another has a larger score, and not below."""
    low = with_decision(SST2, positive=0.2)
    high = with_decision(SST2, positive=0.9)
    logits = np.log(np.array([0.7, 0.3], np.float32))

    assert decided_of(low, logits).given == (1,)
    assert decided_of(SST2, logits).given == (0,)
    assert decided_of(high, -logits).given == (0,)


def test_a_model_abstains_below_its_bound() -> None:
    """No label is given where the best score is smaller, or where no threshold is reached."""
    logits = np.log(np.array([0.7, 0.3], np.float32))

    unsure = decided_of(with_decision(SST2, 0.8), logits)
    neither = decided_of(with_decision(SST2, positive=0.9, negative=0.9), logits)

    assert (unsure.given, unsure.best, unsure.abstained) == ((), 0, True)
    assert neither.abstained and neither.given == ()
    assert not decided_of(with_decision(SST2, 0.6), logits).abstained


def test_a_decision_travels_with_its_task() -> None:
    """It is read back as it was written, and a threshold of another label is refused."""
    task = with_decision(SST2, 0.8, positive=0.25)

    assert Task.from_json(task.to_json()) == task
    with pytest.raises(BadCheckpoint):
        Task.from_json({**task.to_json(), "labels": ["no", "yes"]})


NO_GOALS = "spam spam: :f1 spam:recall a:f1=2 a:recall=0 a:precision=2 a:precision=nan a:accuracy=1"


@pytest.mark.parametrize("text", NO_GOALS.split())
def test_a_goal_that_says_nothing_is_refused(text: str) -> None:
    """The form is named in the error."""
    with pytest.raises(BadSetting, match="threshold-for"):
        ThresholdGoal.parse(text)


@pytest.mark.parametrize("text", ["x:precision=0.8", "x:recall=0.8", "x:f1"])
def test_no_other_threshold_is_better(text: str) -> None:
    """Brute force over all scores finds none that reaches the goal with more of the other."""
    draw = np.random.default_rng(0)
    has_B = draw.random(200) < 0.3
    random_B = draw.random(200)
    scores_B: NDArray[np.float64] = np.asarray(np.round(0.35 * has_B + 0.65 * random_B, 2), float)
    goal = ThresholdGoal.parse(text)

    found = choose_threshold(goal, "x", scores_B, has_B)

    measured = {
        limit: (precision_score(has_B, scores_B >= limit), recall_score(has_B, scores_B >= limit))
        for limit in {*scores_B.tolist(), found.value}
    }
    assert measured[found.value] == pytest.approx((found.precision, found.recall))
    match goal.measure:
        case "precision":
            best = max(r for p, r in measured.values() if p >= 0.8)
            assert (found.precision or 0) >= 0.8 and found.recall == pytest.approx(best)
        case "recall":
            best = max(p for p, r in measured.values() if r >= 0.8)
            assert (found.recall or 0) >= 0.8 and found.precision == pytest.approx(best)
        case "f1":
            best = max(f1_score(has_B, scores_B >= limit) for limit in scores_B)
            assert f1_score(has_B, scores_B >= found.value) == pytest.approx(best)


def test_a_goal_out_of_reach_is_refused() -> None:
    """The error names the best that there is; a label that no row has gives no threshold."""
    goal = ThresholdGoal.parse("x:precision=0.9")
    scores_B, has_B = np.linspace(0, 1, 10), np.arange(10) % 2 == 0

    with pytest.raises(BadData, match="reaches precision"):
        choose_threshold(goal, "x", scores_B, has_B)
    with pytest.raises(BadData, match="0 of 10 rows"):
        choose_threshold(goal, "x", scores_B, has_B & False)
