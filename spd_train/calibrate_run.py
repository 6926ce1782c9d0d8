"""The calibration of a run: fitted on its validation rows, measured on its dev rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.temperature import (
    FittedTemperature,
    TemperatureScaling,
    is_calibrated_by_temperature,
)
from spd_train.calibrate import AnsweredRows
from spd_train.data.batching import LabelledTokens
from spd_train.plots.reliability import RELIABILITY_FILE
from spd_train.setup import PreparedRun
from spd_train.train_config import TrainConfig
from spd_train.training.scoring import Forward


def calibrate(
    config: TrainConfig, prepared: PreparedRun, forward: Forward, progress: Progress, owner: str
) -> TemperatureScaling | None:
    """Fit the temperature of a model and measure what it changes; None for a regression.

    Args:
        config: the run; its recipe may want the logits as they are.
        prepared: the validation rows and the dev rows.
        forward: maps a batch to the model's logits, without any temperature.
        progress: is told the result, or why no temperature was fitted.
        owner: the model, for the message.
    """
    if not is_calibrated_by_temperature(config.task):
        return None
    fitted = FittedTemperature()
    holdout = prepared.context.samples.holdout
    if config.recipe.calibrate:
        fitted = FittedTemperature(reason="there are no validation rows")
        if holdout:
            fitted = _answered(config, prepared, forward, holdout).temperature(config.task)
    picture = prepared.loop.folder / RELIABILITY_FILE
    found = _measured(config, prepared, forward, fitted, picture)
    if fitted.reason is None:
        progress.note(f"calibration of the {owner} model: {found}")
    else:
        progress.note(f"the {owner} model is not calibrated: {fitted.reason}")
    return found


def calibrations(
    config: TrainConfig,
    prepared: PreparedRun,
    teacher_forward: Forward,
    teacher: Checkpoint,
    student: TemperatureScaling | None,
) -> Mapping[str, TemperatureScaling]:
    """The calibration of both models on the dev rows; empty for a regression.

    Args:
        config: the run.
        prepared: the dev rows.
        teacher_forward: maps a batch to the teacher's logits as they were trained.
        teacher: tells its temperature, and its calibration where this run trained it.
        student: of the student.
    """
    if student is None:
        return {}
    dense = teacher.calibration.get("dense")
    if dense is None or config.teacher is not None:
        fitted = FittedTemperature(
            value=teacher.temperature, rows=0 if dense is None else dense.rows
        )
        dense = _measured(config, prepared, teacher_forward, fitted)
    return {"dense": dense, "sparse": student}


def temperature_of(calibration: TemperatureScaling | None) -> float:
    """The divisor of the logits."""
    return 1.0 if calibration is None else calibration.temperature


def _measured(
    config: TrainConfig,
    prepared: PreparedRun,
    forward: Forward,
    fitted: FittedTemperature,
    picture: Path | None = None,
) -> TemperatureScaling:
    """The calibration on all dev rows, with a reliability diagram where a file is named."""
    parts = (_answered(config, prepared, forward, rows) for rows in prepared.dev.values())
    answered = AnsweredRows.joined(parts)
    found = answered.calibration(config.task, fitted, split=config.data.dev_name)
    if picture is not None:
        answered.draw(config.task, found, picture)
    return found


def _answered(
    config: TrainConfig, prepared: PreparedRun, forward: Forward, rows: Sequence[LabelledTokens]
) -> AnsweredRows:
    """The answers of the model to some rows."""
    context = prepared.context
    return AnsweredRows.of(
        forward,
        config.task,
        rows,
        pad_id=context.pad_id,
        device=context.distributed.device,
    )
