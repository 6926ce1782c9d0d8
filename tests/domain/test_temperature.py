"""Temperature scaling, calibration error and coverage, against laws and brute force."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from spd_deploy.domain.answers import scores_from
from spd_deploy.domain.calibration_error import Reliability
from spd_deploy.domain.coverage import coverage_of
from spd_deploy.domain.tasks import ProblemType, Task, task_named
from spd_deploy.domain.temperature import (
    TemperatureScaling,
    calibration_of_answers,
    error_of,
    fit_temperature,
)

MNLI = task_named("mnli")
MULTI = replace(MNLI, problem_type=ProblemType.MULTI_LABEL)


def drawn(task: Task, rows: int, factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits that are ``factor`` times too large, with labels drawn from the right ones."""
    draw = np.random.default_rng(0)
    logits_BC = draw.normal(size=(rows, 3)) * 1.5
    scores_BC = scores_from(task, logits_BC)
    if task.is_multi_label:
        return logits_BC * factor, (draw.random(scores_BC.shape) < scores_BC).astype(np.float64)
    labels = [draw.choice(3, p=row) for row in scores_BC]
    return logits_BC * factor, np.array(labels, np.float64)


@pytest.mark.parametrize("task", [MNLI, MULTI], ids=["one label", "several"])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_what_was_done(task: Task, factor: float) -> None:
    """Logits that were multiplied by a factor get it back as their temperature, and fit better."""
    logits_BC, truth = drawn(task, 4000, factor)

    fitted = fit_temperature(task, logits_BC, truth)
    found = calibration_of_answers(task, logits_BC, truth, fitted, split="dev")

    assert fitted.value == pytest.approx(factor, rel=0.1)
    assert found.after.expected < found.before.expected
    assert found.after.brier < found.before.brier
    assert fit_temperature(task, logits_BC / fitted.value, truth).value == 1.0
    assert TemperatureScaling.from_json(
        {**{n: getattr(found, n) for n in ("temperature", "rows", "split")},
         "before": {n: getattr(found.before, n) for n in ("expected", "brier", "confidence")},
         "after": {n: getattr(found.after, n) for n in ("expected", "brier", "confidence")}}
    ) == found  # fmt: skip


def test_no_temperature_is_made_of_nothing() -> None:
    """Few rows, rows without an error and a model without skill leave the logits as they are."""
    logits_BC, labels_B = drawn(MNLI, 400, 3.0)

    few = fit_temperature(MNLI, logits_BC[:30], labels_B[:30])
    perfect = fit_temperature(MNLI, logits_BC, logits_BC.argmax(1).astype(float))
    wrong = fit_temperature(MNLI, logits_BC, logits_BC.argmin(1).astype(float))

    for one, word in ((few, "30 rows"), (perfect, "errs on none"), (wrong, "nothing")):
        assert one.value == 1.0 and word in (one.reason or "")


def test_the_bins_of_a_diagram_give_its_error() -> None:
    """The expected calibration error is the mean gap of the bins, weighted by their rows."""
    logits_BC, labels_B = drawn(MNLI, 500, 2.0)

    bins = Reliability.of(scores_from(MNLI, logits_BC), labels_B)

    gaps = np.abs(np.array(bins.confidence) - np.array(bins.accuracy)) * np.array(bins.rows)
    assert sum(bins.rows) == 500
    assert gaps.sum() / 500 == pytest.approx(error_of(MNLI, logits_BC, labels_B).expected)


def test_coverage_is_counted() -> None:
    """Answered rows, and right ones among them, are those that brute force counts."""
    logits_BC, labels_B = drawn(MNLI, 300, 1.0)
    scores_BC = scores_from(MNLI, logits_BC)

    found = coverage_of(MNLI, logits_BC, labels_B, also=(0.77,))

    assert 0.77 in [one.below for one in found] and found[0].coverage == 1.0
    for one in found:
        kept = scores_BC.max(1) >= one.below
        assert one.coverage == pytest.approx(kept.mean())
        right = (scores_BC.argmax(1) == labels_B)[kept]
        assert one.accuracy == (pytest.approx(right.mean()) if kept.any() else None)
