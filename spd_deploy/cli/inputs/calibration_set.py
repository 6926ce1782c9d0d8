"""The texts that int8 is calibrated on, and those that int8 and bf16 are scored on.

They are the task's train and dev data, read as ``spd train`` reads them. Where there is no dev
file, the tenth that training left out is scored, and none of it is calibrated on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.api.evaluation import (
    AnsweredPart,
    agreed_task,
    answer_parts,
    logits_and_truth,
    refuse_unlabelled,
    scores_of_parts,
)
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import (
    TemperatureScaling,
    error_of,
    is_calibrated_by_temperature,
)
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.domain.text_encoder import EncodesOnce
from spd_deploy.domain.text_lengths import Lengths
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_as_trained

if TYPE_CHECKING:
    from exporters.precision import CalibrationSet
    from spd_train.data.splits import Data

# Number of texts to calibrate on, and the batch size: enough for ranges, in seconds.
_CALIBRATION_ROWS, _CALIBRATION_BATCH = 512, 16


def calibration_set_for(
    checkpoint: Checkpoint,
    task_name: str | None,
    data_dir: Path | None,
    max_drop: float,
    progress: Progress,
    *,
    skip_broken: bool = False,
) -> "CalibrationSet":
    """The first texts of train to calibrate on, and dev to score.

    Args:
        checkpoint: the model that is exported.
        task_name: the task of the data; None for the checkpoint's.
        data_dir: the task's data; None for the hub's.
        max_drop: how much of the first metric may be lost, in points of 100.
        progress: reports where the data come from and how long the texts are.
        skip_broken: leave broken rows out instead of stopping at the first.

    Raises:
        BadSetting: the data are of another task, or the task has no labels.
        BadData: there are no rows, too few, broken ones, or rows without labels.
    """
    from spd_train.data.splits import read_data

    task = agreed_task(checkpoint.task, task_name)
    refuse_unlabelled(task, data_dir)
    encoder = EncodesOnce(tokenizer_as_trained(checkpoint))
    if data_dir is None:
        progress.note("no --data: texts to calibrate and score on come from the hub")
    data = read_data(
        task,
        data_dir,
        skip_broken=skip_broken,
        note=progress.note,
        open_tokenizer=lambda: encoder,
    )
    return calibration_set_of(checkpoint, encoder, task, data, max_drop, progress)


def calibration_set_of(
    checkpoint: Checkpoint,
    encoder: EncodesOnce,
    task: Task,
    data: "Data",
    max_drop: float,
    progress: Progress,
    *,
    refuses: bool = True,
) -> "CalibrationSet":
    """The first texts of ``data.train`` to calibrate on, and ``data.dev`` to score.

    Args:
        checkpoint: the model that is exported.
        encoder: encodes texts with the checkpoint's tokenizer.
        task: the task of the data.
        data: rows as they were read.
        max_drop: how much of the first metric may be lost, in points of 100.
        progress: reports how long the calibration texts are.
        refuses: whether an export that loses more is refused; else the best there is is taken.
    """
    from exporters.precision import CalibrationSet, Scores
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Session

    tokenizer = encoder.tokenizer
    rows = [encoder.encode(e.text, e.pair) for e in data.train[:_CALIBRATION_ROWS]]
    progress.note(
        f"lengths of the calibration texts: {Lengths.of(rows, limit=tokenizer.max_tokens)}"
    )
    dev = {part: list(examples) for part, examples in data.dev.items()}

    last: list[tuple[Session, Mapping[str, AnsweredPart]]] = []

    def answered(session: Session) -> Mapping[str, AnsweredPart]:
        """The answers to dev, which are asked for twice of each session."""
        if not last or last[0][0] is not session:
            opened = OpenedModel(session=session, tokenizer=tokenizer, task=task, source=checkpoint)
            last[:] = [(session, answer_parts(opened, task, dev, Silent(), encoder))]
        return last[0][1]

    def score(session: Session) -> Scores:
        return scores_of_parts(task, answered(session), Silent())

    def calibration(session: Session) -> TemperatureScaling | None:
        """With the temperature that was fitted in fp32, which is in the weights, and without."""
        if not is_calibrated_by_temperature(task):
            return None
        own = checkpoint.calibration.get("dense" if checkpoint.pattern is None else "sparse")
        temperature, rows = (1.0, 0) if own is None else (own.temperature, own.rows)
        logits_BC, truth = logits_and_truth(task, answered(session))
        return TemperatureScaling(
            temperature=temperature,
            rows=rows,
            split=data.dev_name,
            before=error_of(task, temperature * logits_BC, truth),
            after=error_of(task, logits_BC, truth),
        )

    return CalibrationSet(
        batches=_batches(tokenizer, rows),
        score=score,
        metric=task.metrics[0],
        max_drop=max_drop,
        refuses=refuses,
        split=data.dev_name,
        calibration=calibration,
    )


def _batches(tokenizer: Tokenizer, rows: Sequence[Tokens]) -> list[Batch]:
    """The rows, or their windows, in batches of similar length, so that little is padding."""
    windows = [window for row in rows for window in row.windows]
    by_length = sorted(windows, key=lambda row: len(row.ids))
    return [
        tokenizer.pad(by_length[i : i + _CALIBRATION_BATCH])
        for i in range(0, len(by_length), _CALIBRATION_BATCH)
    ]
