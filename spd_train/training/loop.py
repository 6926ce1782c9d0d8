"""The training loop: it owns steps, batches, the optimiser, the log and the saved state.

It knows no schedule and no loss; those are the :class:`Training`'s. What happens at a step is a
function of the weights, the seed and the step alone, so a run that was stopped and resumed gives
the bits of one that was not.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from spd_deploy.domain.errors import Diverged, Interrupted
from spd_deploy.domain.progress import Progress, Silent
from spd_train.data.batches import LabelledTokens, batches_per_epoch, epoch_batches
from spd_train.data.tensors import batch_of
from spd_train.grafting import step_seed
from spd_train.training.best_checkpoint import BestCheckpoint, worth
from spd_train.training.distributed import Distributed, parts_of
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog
from spd_train.training.mixed_precision import MixedPrecision
from spd_train.training.scoring import Scored
from spd_train.training.state import STATE_FILE, load_state, save_state

_CLIP_NORM = 1.0
_MOST_LOGGED_STEPS = 2000
_LEAST_SCORES = 4

Record = dict[str, float | str]


class Training(Protocol):
    """What is trained and how: see :mod:`spd_train.training.finetune` and ``distil`` beside it."""

    name: str
    total_steps: int
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    @property
    def objective(self) -> nn.Module:
        """Gives the terms of the loss for a batch, by name."""
        ...

    @property
    def moves(self) -> bool:
        """Whether any parameter takes part in the step that was prepared."""
        ...

    def prepare(self, step: int) -> Record:
        """Get ready for ``step``; returns what of it belongs in the log."""
        ...

    def texts(self, rows: Sequence[LabelledTokens], step: int) -> Sequence[LabelledTokens]:
        """What is trained on at ``step`` in place of its ``rows``, one for one."""
        ...

    def learning_rate(self, step: int) -> float:
        """The learning rate at ``step``."""
        ...

    def before_update(self) -> None:
        """What is to be done with the gradients before the optimiser takes them."""
        ...

    def after_update(self) -> None:
        """What must hold again after the optimiser moved the weights."""
        ...

    def eligible(self, step: int) -> bool:
        """Whether the weights after ``step`` may be chosen as the best."""
        ...

    def score(self) -> Scored:
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
        metrics: the best checkpoint is chosen by their mean, as GLUE averages them.
        batch_size: rows a step, over all processes and parts.
        accumulate: parts of a step that each process computes one after another.
        save_every_s: how much work a kill may cost, in seconds.
        should_stop: asked after every step; True ends the loop with its state saved.
    """

    folder: Path
    fingerprint: str
    metrics: Sequence[str]
    batch_size: int
    accumulate: int
    pad_id: int
    seed: int
    processes: Distributed
    precision: MixedPrecision
    save_every_s: float = 60.0
    should_stop: Callable[[], bool] = lambda: False


def train(
    training: Training, rows: Sequence[LabelledTokens], loop: Loop, progress: Progress
) -> int:
    """Run ``training`` to its end, from its saved state where there is one.

    The best weights are in place afterwards: those that scored highest on the rows held out, or
    the last where none are. On all processes but the main one nothing is written, told or scored.

    Returns:
        The step after which the weights were as they are now.

    Raises:
        Interrupted: ``should_stop`` said so on any process; the state is saved.
        Diverged: loss or gradient is not a number any more; the last saved state is left.
    """
    first = _resume(training, loop)
    main = loop.processes.is_main
    keeper = _Keeper(training, loop, first) if main else None
    module = loop.processes.prepared(training.objective)
    speaking = progress if main else Silent()
    with speaking.stage(training.name, training.total_steps) as advance:
        advance(first)
        for step, batch in _steps(training, rows, loop, first):
            record = take_step(training, module, batch, step, loop)
            stop = loop.processes.any(loop.should_stop())
            if keeper is not None:
                keeper.after(step, record, len(rows), stop=stop)
            advance(note=f"loss {record['loss']:.3f}")
            if stop:
                loop.processes.wait()
                raise Interrupted(
                    f"stopped at step {step + 1} of {training.total_steps} of {training.name}",
                    fix="continue with --resume",
                )
    loop.processes.wait()
    chosen = BestCheckpoint(loop.folder, fingerprint=loop.fingerprint, begun=True)
    return chosen.take(training.parameters) or training.total_steps


def score_interval(total_steps: int, per_epoch: int) -> int:
    """Steps from one score to the next: an epoch, or less where a run has few epochs."""
    return min(per_epoch, max(1, total_steps // _LEAST_SCORES))


def take_step(
    training: Training,
    module: nn.Module,
    batch: "StepBatch",
    step: int,
    loop: Loop,
) -> Record:
    """One optimiser step over this process's parts of the batch; returns its record for the log."""
    processes = loop.processes
    record = training.prepare(step)
    rate = training.learning_rate(step)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.zero_grad(set_to_none=True)
    terms: dict[str, Tensor] = {}
    for i, part in enumerate(batch.parts):
        torch.manual_seed(step_seed(loop.seed, step, processes.rank * loop.accumulate + i))
        last = i == len(batch.parts) - 1
        found = _part(training, module, batch, part, loop, last=last)
        terms = {name: terms.get(name, 0.0) + term for name, term in found.items()}
    terms = {name: processes.total(term) for name, term in terms.items()}
    values = {name: term.item() for name, term in terms.items()}
    loss = torch.stack(list(terms.values())).sum()
    _refuse_divergence(loss, "loss", step, batch, loop)
    if training.moves:
        training.before_update()
        norm = nn.utils.clip_grad_norm_(training.parameters.values(), _CLIP_NORM)
        _refuse_divergence(norm, "gradient", step, batch, loop)
        training.optimizer.step()
        training.after_update()
    return {
        "loss": loss.item(),
        **{f"{name}_loss": value for name, value in values.items()},
        "learning_rate": rate,
        "real_share": batch.real_share,
        **record,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """The rows of one step and how this process splits its share of them.

    Attributes:
        rows: of the whole step, over all processes.
        numbers: their numbers in the training set.
        parts: of each part, which of ``rows`` it computes.
    """

    rows: Sequence[LabelledTokens]
    numbers: Sequence[int]
    parts: Sequence[Sequence[int]]

    @property
    def real_share(self) -> float:
        """Share of real tokens, were the step padded as one batch."""
        lengths = [len(row.tokens) for row in self.rows]
        return sum(lengths) / (max(lengths) * len(lengths))


def _steps(
    training: Training, rows: Sequence[LabelledTokens], loop: Loop, first: int
) -> Iterator[tuple[int, StepBatch]]:
    """The batch of each step from ``first`` on."""
    lengths = [len(row.tokens) for row in rows]
    per_epoch = batches_per_epoch(len(rows), loop.batch_size)
    order: list[list[int]] = []
    for step in range(first, training.total_steps):
        epoch, position = divmod(step, per_epoch)
        if not order or position == 0:
            order = epoch_batches(lengths, batch_size=loop.batch_size, seed=loop.seed, epoch=epoch)
        numbers = order[position]
        processes = loop.processes
        parts = parts_of(
            len(numbers), count=processes.count, rank=processes.rank, accumulate=loop.accumulate
        )
        texts = training.texts([rows[i] for i in numbers], step)
        yield step, StepBatch(rows=texts, numbers=numbers, parts=parts)


def _part(
    training: Training,
    module: nn.Module,
    batch: StepBatch,
    part: Sequence[int],
    loop: Loop,
    *,
    last: bool,
) -> dict[str, Tensor]:
    """Forward and backward of one part; returns its detached terms.

    A part without rows computes the first row for nothing: all processes must take part in what
    they do together. Gradients are averaged over processes, so the loss is multiplied by their
    number; they are averaged once, with the ``last`` part.
    """
    processes = loop.processes
    factor = 1.0 if part else 0.0
    tensors = batch_of(
        [batch.rows[i] for i in part or (0,)],
        pad_id=loop.pad_id,
        device=processes.device,
        step=batch.rows,
    )
    together = training.moves and last
    runner = module if training.moves else training.objective
    with contextlib.ExitStack() as stack:
        if training.moves and not together and processes.accelerator is not None:
            stack.enter_context(processes.accelerator.no_sync(module))
        with loop.precision.autocast(processes.kind):
            terms = runner(tensors)
        if training.moves:
            loss = torch.stack(list(terms.values())).sum() * (factor * processes.count)
            loss.backward()  # type: ignore[no-untyped-call]
    return {name: term.detach() * factor for name, term in terms.items()}


def _refuse_divergence(value: Tensor, what: str, step: int, batch: StepBatch, loop: Loop) -> None:
    """Stop before weights are spoiled by what is not a number."""
    if torch.isfinite(value):
        return
    rows = ", ".join(map(str, sorted(batch.numbers)[:8]))
    more = ", ..." if len(batch.numbers) > 8 else ""
    kept = loop.folder / STATE_FILE
    raise Diverged(
        f"training diverged: the {what} at step {step} is not a number, on the batch of training "
        f"rows {rows}{more} (counted from 0)",
        fix="start again with a lower learning rate, or with --precision fp32"
        + (f"; the last good state is kept in {kept}" if kept.exists() else ""),
    )


class _Keeper:
    """What only the main process does: the log, the scores, the choice and the saved state."""

    def __init__(self, training: Training, loop: Loop, first: int) -> None:
        self.training = training
        self.loop = loop
        self.journal = MetricsLog(loop.folder / METRICS_FILE, from_step=first)
        self.selection = BestCheckpoint(loop.folder, fingerprint=loop.fingerprint, begun=first > 0)
        self.saved_at = time.perf_counter()

    def after(self, step: int, record: Record, rows: int, *, stop: bool) -> None:
        """All there is to do after ``step``."""
        training, total = self.training, self.training.total_steps
        per_epoch = batches_per_epoch(rows, self.loop.batch_size)
        last = step == total - 1
        if step % max(1, total // _MOST_LOGGED_STEPS) == 0 or last:
            self.journal.write("step", step, record)
        if (step + 1) % score_interval(total, per_epoch) == 0 or last:
            scores = training.score()
            self.journal.write("score", step, {"epoch": (step + 1) / per_epoch, **scores})
            if training.eligible(step):
                value = worth(scores.get("holdout"), self.loop.metrics)
                self.selection.offer(step + 1, value, training.parameters)
        if stop or last or time.perf_counter() - self.saved_at > self.loop.save_every_s:
            self._save(step + 1)
            self.saved_at = time.perf_counter()

    def _save(self, step: int) -> None:
        """Save the state as of before ``step``."""
        save_state(
            self.loop.folder / STATE_FILE,
            step=step,
            fingerprint=self.loop.fingerprint,
            parameters=self.training.parameters,
            optimizer=self.training.optimizer,
            extra=self.training.extra_state(),
        )


def _resume(training: Training, loop: Loop) -> int:
    """Put the saved state in place; returns the step to begin with."""
    loop.processes.wait()
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
