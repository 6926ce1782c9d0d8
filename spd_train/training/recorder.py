"""The files of the main process during a training: log, best checkpoint and saved state."""

import time
from collections.abc import Sequence
from pathlib import Path

from spd_train.training.base import Record, Training
from spd_train.training.best_checkpoint import BestCheckpoint, selection_score
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog, OnLogged, log_alone
from spd_train.training.state import STATE_FILE, save_state

_MAX_LOGGED_STEPS = 2000
_MIN_SCORES = 4


def score_interval(total_steps: int, steps_per_epoch: int) -> int:
    """Steps between two scores: an epoch, or less so that a short run has four scores."""
    return min(steps_per_epoch, max(1, total_steps // _MIN_SCORES))


class Recorder:
    """Writes the files of one training. Only the main process has one."""

    def __init__(
        self,
        training: Training,
        folder: Path,
        *,
        fingerprint: str,
        metrics: Sequence[str],
        steps_per_epoch: int,
        save_every_s: float,
        first: int,
        on_record: OnLogged = log_alone,
    ) -> None:
        """Continue the files in ``folder`` from step ``first``; 0 starts new ones.

        Args:
            training: what is recorded.
            folder: where the files are.
            fingerprint: hash of the run's settings, kept in the files.
            metrics: the best checkpoint has the highest mean of these.
            steps_per_epoch: steps of an epoch.
            save_every_s: seconds between two saved states.
            first: the first step.
            on_record: called with each record of the log.
        """
        self.training = training
        self.folder = folder
        self.fingerprint = fingerprint
        self.metrics = metrics
        self.steps_per_epoch = steps_per_epoch
        self.save_every_s = save_every_s
        self.metrics_log = MetricsLog(folder / METRICS_FILE, from_step=first, on_record=on_record)
        self.best = BestCheckpoint(folder, fingerprint=fingerprint, begun=first > 0)
        self.saved_at_s = time.perf_counter()

    def after_step(self, step: int, record: Record, *, stop: bool) -> None:
        """Log ``record``, and score and save where it is time to.

        Args:
            step: the step that has ended, from 0.
            record: its values for the log.
            stop: the training stops after this step, so the state is saved now.
        """
        total = self.training.total_steps
        last = step == total - 1
        if step % max(1, total // _MAX_LOGGED_STEPS) == 0 or last:
            self.metrics_log.write("step", step, record)
        if (step + 1) % score_interval(total, self.steps_per_epoch) == 0 or last:
            self._score(step)
        if stop or last or time.perf_counter() - self.saved_at_s > self.save_every_s:
            self._save_state(step + 1)
            self.saved_at_s = time.perf_counter()

    def _score(self, step: int) -> None:
        """Score the samples after ``step``, and keep the weights if they are the best so far."""
        scores = self.training.score_samples()
        epoch = (step + 1) / self.steps_per_epoch
        self.metrics_log.write("score", step, {"epoch": epoch, **scores})
        if self.training.may_be_best(step):
            value = selection_score(scores.get("holdout"), self.metrics)
            self.best.offer(step + 1, value, self.training.parameters)

    def _save_state(self, step: int) -> None:
        """Save the state as it is before ``step``."""
        save_state(
            self.folder / STATE_FILE,
            step=step,
            fingerprint=self.fingerprint,
            parameters=self.training.parameters,
            optimizer=self.training.optimizer,
            extra=self.training.extra_state(),
        )
