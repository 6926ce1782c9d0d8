"""What int8 is calibrated on and judged by: the task's own train and dev.

They are read by the rule of ``spd train``: where there is no dev file, the rows that training held
out to measure on are the ones to judge by, and none of them is calibrated on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.api.evaluation import agreed_task, refuse_unlabelled, score_parts
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.text import TOKENIZER_FILE, Lengths, Tokenizer

if TYPE_CHECKING:
    from exporters.precision import CalibrationSet

# Texts that int8 is calibrated on, in batches of some: enough for ranges, and seconds to run.
_CALIBRATION_ROWS, _CALIBRATION_BATCH = 512, 16


def trial_of(
    checkpoint: Checkpoint,
    task_name: str | None,
    data_dir: Path | None,
    max_drop: float,
    progress: Progress,
) -> "CalibrationSet":
    """Train's first texts to calibrate int8 on, and dev, or what is held out, to judge it by.

    Raises:
        BadSetting: data of another task, or of one that says nothing of labels.
        BadData: none, too few rows, broken, or without labels.
    """
    from exporters.precision import CalibrationSet, Scores
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Session
    from spd_train.data.splits import read_data

    task = agreed_task(checkpoint.task, task_name)
    refuse_unlabelled(task, data_dir)
    tokenizer = Tokenizer(checkpoint.folder / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    if data_dir is None:
        progress.note("texts to calibrate on and to judge by come from the hub: no --data")
    data = read_data(task, data_dir, skip_broken=None, note=progress.note)
    rows = [tokenizer.encode(e.text, e.pair) for e in data.train[:_CALIBRATION_ROWS]]
    progress.note(
        f"lengths of texts to calibrate on: {Lengths.of(rows, limit=tokenizer.max_tokens)}"
    )
    rows.sort(key=lambda row: len(row.ids))
    dev = {part: list(examples) for part, examples in data.dev.items()}

    def score(session: Session) -> Scores:
        opened = OpenedModel(session=session, tokenizer=tokenizer, task=task)
        return score_parts(opened, task, dev, Silent())

    return CalibrationSet(
        batches=[
            tokenizer.pad(rows[i : i + _CALIBRATION_BATCH])
            for i in range(0, len(rows), _CALIBRATION_BATCH)
        ],
        score=score,
        metric=task.metrics[0],
        max_drop=max_drop,
        split=data.dev_name,
    )
