"""Tasks, their metrics, and how logits become answers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadData,
    BadSetting,
    EngineFailed,
    UnknownTask,
)
from spd_deploy.domain.metrics import led_by, merged_scores, scores_of
from spd_deploy.domain.tasks import (
    DEFAULT_METRICS,
    TASKS,
    Columns,
    ProblemType,
    Task,
    own_task,
    task_named,
)

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
GLUE = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}


def of_type(problem: ProblemType, labels: tuple[str, ...] = ("a", "b", "c")) -> Task:
    return Task(
        name="t",
        labels=labels,
        problem_type=problem,
        metrics=("accuracy",),
        columns=Columns(text="x"),
    )


def test_all_of_glue_is_known() -> None:
    """The nine tasks are there by name."""
    assert set(TASKS) >= GLUE


@every_task
def test_a_task_survives_json(task: Task) -> None:
    """A task that went through JSON is equal to itself."""
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize("damage", [{}, {"name": "x"}, {"problem_type": "other"}, {"columns": 3}])
def test_a_damaged_task_is_refused(damage: dict[str, object]) -> None:
    """A task with a missing or wrong field is one clear error."""
    value = {**TASKS["mrpc"].to_json(), **damage} if damage else {}
    if damage == {"name": "x"}:
        del value["labels"]

    with pytest.raises(BadCheckpoint):
        Task.from_json(value)


@pytest.mark.parametrize("name", ["SST-2", "sst_2", "sst2", "MRPC", "STS-B"])
def test_names_are_read_kindly(name: str) -> None:
    """Case, hyphens and underscores do not matter."""
    assert task_named(name).name == name.lower().replace("-", "").replace("_", "")


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    """The error lists the names there are."""
    with pytest.raises(UnknownTask, match="unknown task") as caught:
        task_named("glue")

    assert "mrpc" in caught.value.fix


def test_metrics_are_the_official_ones() -> None:
    """Hand-counted examples of every metric that GLUE uses."""
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [5.0, 1.0]])  # answers 0 1 1 0

    mrpc = scores_of(TASKS["mrpc"], logits, [0, 1, 0, 0])
    cola = scores_of(TASKS["cola"], logits, [0, 1, 0, 0])

    assert mrpc == {"f1": pytest.approx(2 / 3), "accuracy": 0.75}
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) with TP 1, TN 2, FP 1, FN 0
    assert cola == {"matthews": pytest.approx(2 / math.sqrt(2 * 1 * 3 * 2))}


def test_correlations_are_those_of_numpy() -> None:
    """Pearson is NumPy's; Spearman is Pearson of the ranks."""
    answers, truth = np.array([0.1, 2.0, 1.0, 4.0]), [0.0, 1.0, 3.0, 10.0]

    found = scores_of(TASKS["stsb"], answers[:, None], truth)

    assert found["pearson"] == pytest.approx(np.corrcoef(answers, truth)[0, 1])
    ranks = np.argsort(np.argsort(answers)), np.argsort(np.argsort(truth))
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_constant_answers_have_no_correlation() -> None:
    """An undefined metric is NaN, and null once it is recorded."""
    found = scores_of(TASKS["stsb"], np.ones((4, 1)), [1.0, 2.0, 3.0, 4.0])

    assert math.isnan(found["pearson"])
    assert merged_scores({"dev": found})["pearson"] is None


def test_the_second_file_of_mnli_carries_its_name() -> None:
    """Matched and mismatched do not overwrite each other."""
    found = merged_scores({"dev_matched": {"accuracy": 0.8}, "dev_mismatched": {"accuracy": 0.7}})

    assert found == {"accuracy": 0.8, "accuracy_mismatched": 0.7}


def test_nothing_cannot_be_scored() -> None:
    """No rows, no metric."""
    with pytest.raises(BadData):
        scores_of(TASKS["mrpc"], np.zeros((0, 2)), [])


@given(
    arrays(
        np.float32, 3, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
    )
)
def test_single_label_scores_are_a_distribution(logits_C: np.ndarray) -> None:
    """Softmax adds up to one and stays finite for logits of any size; best first."""
    answers = answers_of(of_type(ProblemType.SINGLE_LABEL), logits_C)

    assert sum(a.score for a in answers) == pytest.approx(1.0)
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
    assert {a.label for a in answers} == {"a", "b", "c"}


@given(
    arrays(
        np.float32, 3, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
    )
)
def test_multi_label_scores_stand_alone(logits_C: np.ndarray) -> None:
    """Each label has its own sigmoid between 0 and 1."""
    scores = {a.label: a.score for a in answers_of(of_type(ProblemType.MULTI_LABEL), logits_C)}

    for label, logit in zip("abc", logits_C.tolist(), strict=True):
        expected = 1 / (1 + math.exp(-logit)) if abs(logit) < 500 else float(logit > 0)
        assert scores[label] == pytest.approx(expected)


def test_a_regression_answers_with_its_number() -> None:
    """The one output is the answer."""
    (answer,) = answers_of(of_type(ProblemType.REGRESSION, ()), np.array([3.25], np.float32))

    assert (answer.label, answer.score) == ("score", 3.25)


def test_raw_scores_are_the_logits() -> None:
    """Raw answers skip the activation but keep the order."""
    answers = answers_of(
        of_type(ProblemType.SINGLE_LABEL), np.array([1.0, 3.0, 2.0], np.float32), raw=True
    )

    assert [(a.label, a.score) for a in answers] == [("b", 3.0), ("c", 2.0), ("a", 1.0)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error(bad: float) -> None:
    """A model that answers NaN or infinity has failed; nobody gets a null."""
    with pytest.raises(EngineFailed):
        answers_of(of_type(ProblemType.SINGLE_LABEL), np.array([0.0, bad, 1.0], np.float32))


def test_an_own_task_without_labels_is_a_regression() -> None:
    """Labels decide the problem type and the metrics."""
    regression = own_task(text_column="t", pair_column=None, label_column="y", labels=())
    classes = own_task(text_column="t", pair_column="p", label_column="y", labels=("n", "y"))

    assert regression.is_regression and regression.outputs == 1
    assert classes.outputs == 2 and classes.has_pair


def test_scores_of_several_labels_are_scikit_learns() -> None:
    """On the labels that reach a half; a label that no row has is no part of the precision."""
    draw = np.random.default_rng(0)
    several = ProblemType.MULTI_LABEL
    task = replace(of_type(several), metrics=DEFAULT_METRICS[several])
    logits, truth = draw.normal(size=(40, 3)), draw.integers(0, 2, (40, 3))
    truth[:, 2] = 0

    found = scores_of(task, logits, [tuple(row) for row in truth.tolist()])

    assert task.chosen_by == ("micro_f1",)
    given = logits >= 0
    assert found == pytest.approx(
        {
            "micro_f1": metrics.f1_score(truth, given, average="micro"),
            "macro_f1": metrics.f1_score(truth, given, average="macro", zero_division=0),
            "mean_average_precision": np.mean(
                [metrics.average_precision_score(truth[:, i], logits[:, i]) for i in (0, 1)]
            ),
        }
    )


@pytest.mark.parametrize(
    ("task", "metric", "found"),
    [
        ("sst2", "matthews", ("matthews", "accuracy")),
        ("mrpc", "accuracy", ("accuracy", "f1")),
        ("stsb", "spearman", ("spearman", "pearson")),
    ],
)
def test_a_named_metric_is_the_headline(task: str, metric: str, found: tuple[str, ...]) -> None:
    """It comes first, and the metrics of the task stay; each can be computed."""
    led = led_by(TASKS[task], metric)

    assert led.metrics == found
    assert list(scores_of(led, np.eye(2)[:, : led.outputs], [0, 1])) == list(found)


@pytest.mark.parametrize(
    ("task", "metric"), [("mnli", "f1"), ("stsb", "accuracy"), ("sst2", "pearson")]
)
def test_a_metric_of_another_kind_is_refused(task: str, metric: str) -> None:
    """The error lists those that the task has; F1 is one of two labels."""
    with pytest.raises(BadSetting, match=r"has no such metric; got .*; use "):
        led_by(TASKS[task], metric)


def test_soft_labels_are_scored_by_the_most_probable() -> None:
    """Rows with a class and rows with probabilities may be mixed."""
    task = of_type(ProblemType.SINGLE_LABEL)
    logits = np.eye(3)[[0, 1, 2]]

    assert scores_of(task, logits, [0, (0.2, 0.7, 0.1), (0.5, 0.2, 0.3)])["accuracy"] == 2 / 3
