"""The training loop: optimiser steps, micro-batches, the log and the saved state.

The loop knows no schedule and no loss; those belong to the :class:`Training`. A step is a function
of the weights, the seed and the step number alone, so a run that was stopped and resumed ends with
the same bits as a run that was not.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import Diverged, Interrupted
from spd_deploy.domain.progress import Progress, Silent
from spd_train.data.batching import LabelledTokens, batch_of, batches_per_epoch
from spd_train.grafting import step_seed
from spd_train.training.base import Record, Training
from spd_train.training.best_checkpoint import BestCheckpoint
from spd_train.training.expected_time import ExpectedTime, LaterTrainings, TrainingWork
from spd_train.training.metrics_log import OnLogged, log_alone
from spd_train.training.recorder import Recorder
from spd_train.training.state import STATE_FILE, load_state
from spd_train.training.step_batches import StepBatch, step_batches

_MAX_NAMED_ROWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """The settings of a loop.

    Attributes:
        folder: where the log and the state are written.
        fingerprint: hash of the run's settings; a saved state with another one is refused.
        metrics: the best checkpoint has the highest mean of these, as GLUE averages them.
        batch_size: texts of a step, over all processes and micro-batches.
        accumulate: micro-batches that each process computes for a step, one after another; more
            where texts are read in windows.
        save_every_s: seconds between two saved states; a kill loses at most that much work.
        should_stop: called after every step; True saves the state and ends the loop.
        on_record: called with each record of the log.
        later: what the command trains afterwards, for the estimate of its time.
    """

    folder: Path
    fingerprint: str
    metrics: Sequence[str]
    batch_size: int
    accumulate: int
    save_every_s: float = 60.0
    should_stop: Callable[[], bool] = lambda: False
    on_record: OnLogged = log_alone
    later: LaterTrainings = field(default_factory=LaterTrainings)


def run_loop(
    training: Training, rows: Sequence[LabelledTokens], loop: LoopConfig, progress: Progress
) -> int:
    """Run ``training`` to its end, from its saved state if there is one.

    Afterwards the model has the weights that scored highest on the validation rows, or the last
    weights where there are none. Only the main process writes files, scores and progress.

    Returns:
        The number of steps after which the model had the weights that it has now.

    Raises:
        Interrupted: ``should_stop`` returned True on any process; the state is saved.
        Diverged: the loss or the gradient is not finite; the last saved state is kept.
    """
    distributed = training.context.distributed
    first = _resume(training, loop)
    recorder = _recorder(training, rows, loop, first) if distributed.is_main else None
    module = distributed.wrap(training.objective)
    batches = step_batches(
        training, rows, batch_size=loop.batch_size, accumulate=loop.accumulate, first=first
    )
    shown = progress if distributed.is_main else Silent()
    with shown.stage(
        training.name, training.total_steps, slow_steps=training.slow_steps
    ) as advance:
        advance(first)
        expected = _expected_time(training, loop, first)
        for step, batch in batches:
            if work := training.slow_work(step):
                shown.note(f"{work} at step {step + 1}: takes longer than other steps")
            record = take_step(training, module, batch, step, loop)
            stop = distributed.any(loop.should_stop())
            if recorder is not None:
                recorder.after_step(step, record, stop=stop)
            advance(note=f"loss {record['loss']:.3f}")
            if line := expected.after_step(updated=work is not None):
                shown.note(line)
            if stop:
                distributed.barrier()
                raise Interrupted(
                    f"stopped at step {step + 1} of {training.total_steps} of {training.name}",
                    fix="continue with --resume",
                )
    distributed.barrier()
    best = BestCheckpoint(loop.folder, fingerprint=loop.fingerprint, begun=True)
    return best.load(training.parameters) or training.total_steps


def _expected_time(training: Training, loop: LoopConfig, first: int) -> ExpectedTime:
    """The estimate of the run's time, from step ``first`` on."""
    updates = sum(step >= first for step in training.slow_steps)
    left = TrainingWork(steps=training.total_steps - first, updates=updates)
    return ExpectedTime(name=training.name, left=left, later=loop.later)


def take_step(
    training: Training, module: nn.Module, batch: StepBatch, step: int, loop: LoopConfig
) -> Record:
    """Take one optimiser step over this process's micro-batches. Returns its values for the log.

    Raises:
        Diverged: the loss or the gradient is not finite; the weights are not updated.
    """
    distributed = training.context.distributed
    record = training.begin_step(step)
    rate = training.learning_rate(step)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    terms: dict[str, Tensor] = {}
    for i, positions in enumerate(batch.micro_batches):
        seed = step_seed(
            training.context.seed, step, distributed.rank * len(batch.micro_batches) + i
        )
        _seed(seed, distributed.kind)
        last = i == len(batch.micro_batches) - 1
        micro_terms = _micro_step(training, module, batch, positions, last=last)
        terms = {name: terms.get(name, 0.0) + term for name, term in micro_terms.items()}
    terms = {name: distributed.sum(term) for name, term in terms.items()}
    loss = torch.stack(list(terms.values())).sum()
    _refuse_divergence(loss, "loss", step, batch, loop)
    if training.has_gradients:
        norm = training.clip_gradients()
        _refuse_divergence(norm, "gradient", step, batch, loop)
        training.optimizer_step()
    return {
        "loss": loss.item(),
        **{f"{name}_loss": term.item() for name, term in terms.items()},
        "learning_rate": rate,
        "real_share": batch.real_share,
        **record,
    }


def _seed(seed: int, kind: str) -> None:
    """Seed the generators of the CPU and of the run's device.

    ``torch.manual_seed`` would also note a stack trace for each GPU that is not used.
    """
    torch.default_generator.manual_seed(seed)
    if kind == "cuda":
        torch.cuda.manual_seed_all(seed)


def _micro_step(
    training: Training,
    module: nn.Module,
    batch: StepBatch,
    positions: Sequence[int],
    *,
    last: bool,
) -> dict[str, Tensor]:
    """Forward and backward pass of one micro-batch. Returns the terms of its loss, detached.

    An empty micro-batch computes the first row and multiplies the result by 0, since all processes
    must take part in every collective operation. Gradients are averaged over the processes once,
    with the ``last`` micro-batch, so the loss is multiplied by the number of processes.
    """
    context = training.context
    distributed = context.distributed
    factor = 1.0 if positions else 0.0
    tensors = batch_of(
        [batch.rows[i] for i in positions or (0,)],
        pad_id=context.pad_id,
        device=distributed.device,
        step=batch.rows,
    )
    runner = module if training.has_gradients else training.objective
    with contextlib.ExitStack() as stack:
        if training.has_gradients and not last and distributed.accelerator is not None:
            stack.enter_context(distributed.accelerator.no_sync(module))
        with context.precision.autocast(distributed.kind):
            terms = runner(tensors)
        if training.has_gradients:
            loss = torch.stack(list(terms.values())).sum() * (factor * distributed.world_size)
            loss.backward()  # type: ignore[no-untyped-call]
    return {name: term.detach() * factor for name, term in terms.items()}


def _refuse_divergence(
    value: Tensor, what: str, step: int, batch: StepBatch, loop: LoopConfig
) -> None:
    """Raise ``Diverged`` if ``value`` is not finite, before it reaches the weights."""
    if torch.isfinite(value):
        return
    rows = ", ".join(map(str, sorted(batch.numbers)[:_MAX_NAMED_ROWS]))
    more = ", ..." if len(batch.numbers) > _MAX_NAMED_ROWS else ""
    state = loop.folder / STATE_FILE
    raise Diverged(
        f"training diverged: the {what} at step {step} is not a number, on the batch of training "
        f"rows {rows}{more} (counted from 0)",
        fix="start again with a lower learning rate, or with --precision fp32"
        + (f"; the last good state is kept in {state}" if state.exists() else ""),
    )


def _recorder(
    training: Training, rows: Sequence[LabelledTokens], loop: LoopConfig, first: int
) -> Recorder:
    """The recorder of a training that starts at step ``first``."""
    return Recorder(
        training,
        loop.folder,
        fingerprint=loop.fingerprint,
        metrics=loop.metrics,
        steps_per_epoch=batches_per_epoch(len(rows), loop.batch_size),
        save_every_s=loop.save_every_s,
        first=first,
        on_record=loop.on_record,
    )


def _resume(training: Training, loop: LoopConfig) -> int:
    """Load the saved state, if there is one. Returns the step to continue with."""
    training.context.distributed.barrier()
    file = loop.folder / STATE_FILE
    if not file.exists():
        return 0
    step, extra = load_state(
        file,
        fingerprint=loop.fingerprint,
        parameters=training.parameters,
        optimizer=training.optimizer,
    )
    training.load_extra_state(extra)
    return step
