"""The training loop: it owns steps, batches, the optimiser, the log and the saved state.

It knows no schedule and no loss; those are the :class:`Training`'s. What happens at a step is a
function of the weights, the seed and the step alone, so a run that was stopped and resumed gives
the bits of one that was not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import BadSetting, Interrupted
from spd_deploy.domain.progress import Progress
from spd_train.data.batches import LabelledTokens, batches_per_epoch, epoch_batches
from spd_train.data.tensors import TensorBatch, batch_of
from spd_train.network import step_seed
from spd_train.training.journal import JOURNAL_FILE, Journal
from spd_train.training.precision import Precision
from spd_train.training.state import STATE_FILE, load_state, save_state

_CLIP_NORM = 1.0
_MOST_LOGGED_STEPS = 2000
_LEAST_SCORES = 4


class Training(Protocol):
    """What is trained and how: see :mod:`spd_train.training.finetune` and ``distil`` beside it."""

    name: str
    total_steps: int
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def prepare(self, step: int) -> dict[str, float | str]:
        """Get ready for ``step``; returns what of it belongs in the log."""
        ...

    def losses(self, batch: TensorBatch) -> dict[str, Tensor]:
        """The terms of the loss, to be summed."""
        ...

    def learning_rate(self, step: int) -> float:
        """The learning rate at ``step``."""
        ...

    def after_update(self) -> None:
        """What must hold again after the optimiser moved the weights."""
        ...

    def score(self) -> dict[str, dict[str, float]]:
        """Metrics of the model as it is now, by sample."""
        ...

    def extra_state(self) -> dict[str, Tensor]:
        """What besides parameters and moments a resumed run needs."""
        ...

    def restore(self, extra: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`extra_state`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """The settings of a loop.

    Attributes:
        folder: where the log and the state are kept.
        fingerprint: tells whether a saved state belongs to this run.
        save_every_s: how much work a kill may cost, in seconds.
        should_stop: asked after every step; True ends the loop with its state saved.
    """

    folder: Path
    fingerprint: str
    batch_size: int
    pad_id: int
    seed: int
    device: str
    precision: Precision
    save_every_s: float = 60.0
    should_stop: Callable[[], bool] = lambda: False


def train(
    training: Training, rows: Sequence[LabelledTokens], loop: Loop, progress: Progress
) -> None:
    """Run ``training`` to its end, from its saved state where there is one.

    Raises:
        Interrupted: ``should_stop`` said so; the state is saved.
        BadSetting: the loss is not a number any more.
    """
    first = _resume(training, loop)
    journal = Journal(loop.folder / JOURNAL_FILE, from_step=first)
    lengths = [len(row.tokens) for row in rows]
    per_epoch = batches_per_epoch(len(rows), loop.batch_size)
    log_every = max(1, training.total_steps // _MOST_LOGGED_STEPS)
    score_every = score_interval(training.total_steps, per_epoch)
    order: list[list[int]] = []
    saved_at = time.perf_counter()
    with progress.stage(training.name, training.total_steps) as advance:
        advance(first)
        for step in range(first, training.total_steps):
            epoch, position = divmod(step, per_epoch)
            if not order or position == 0:
                order = epoch_batches(
                    lengths, batch_size=loop.batch_size, seed=loop.seed, epoch=epoch
                )
            batch = batch_of(
                [rows[i] for i in order[position]], pad_id=loop.pad_id, device=loop.device
            )
            record = take_step(training, batch, step, loop)
            if step % log_every == 0 or step == training.total_steps - 1:
                journal.write("step", step, record)
            if (step + 1) % score_every == 0 or step == training.total_steps - 1:
                journal.write("score", step, {"epoch": (step + 1) / per_epoch, **training.score()})
            advance(note=f"loss {record['loss']:.3f}")
            stop = loop.should_stop()
            if stop or time.perf_counter() - saved_at > loop.save_every_s:
                _save(training, step + 1, loop)
                saved_at = time.perf_counter()
            if stop:
                raise Interrupted(
                    f"stopped at step {step + 1} of {training.total_steps} of {training.name}",
                    fix="continue with the same command and --resume",
                )
    _save(training, training.total_steps, loop)


def score_interval(total_steps: int, per_epoch: int) -> int:
    """Steps from one score to the next: an epoch, or less where a run has few epochs."""
    return min(per_epoch, max(1, total_steps // _LEAST_SCORES))


def take_step(
    training: Training, batch: TensorBatch, step: int, loop: Loop
) -> dict[str, float | str]:
    """One optimiser step; returns its record for the log."""
    torch.manual_seed(step_seed(loop.seed, step))
    record = training.prepare(step)
    rate = training.learning_rate(step)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    with loop.precision.autocast(loop.device):
        terms = training.losses(batch)
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise BadSetting(
            f"training diverged: the loss at step {step} is not a number",
            fix="start again with a lower learning rate, or with --precision fp32",
        )
    training.optimizer.zero_grad(set_to_none=True)
    if loss.requires_grad:  # not when every layer was drawn as teacher
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(training.parameters.values(), _CLIP_NORM)
        training.optimizer.step()
        training.after_update()
    return {
        "loss": loss.item(),
        **{f"{name}_loss": term.item() for name, term in terms.items()},
        "learning_rate": rate,
        "real_share": batch.real_share,
        **record,
    }


def _resume(training: Training, loop: Loop) -> int:
    """Put the saved state in place; returns the step to begin with."""
    file = loop.folder / STATE_FILE
    if not file.exists():
        return 0
    step, extra = load_state(
        file,
        fingerprint=loop.fingerprint,
        parameters=training.parameters,
        optimizer=training.optimizer,
    )
    training.restore(extra)
    return step


def _save(training: Training, step: int, loop: Loop) -> None:
    """Save the state as of before ``step``."""
    save_state(
        loop.folder / STATE_FILE,
        step=step,
        fingerprint=loop.fingerprint,
        parameters=training.parameters,
        optimizer=training.optimizer,
        extra=training.extra_state(),
    )
