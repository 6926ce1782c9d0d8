"""The rows of each optimiser step, and which of them this process computes in which micro-batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_train.data.batching import (
    LabelledTokens,
    batches_per_epoch,
    epoch_batches,
    window_counts,
)
from spd_train.training.base import Training
from spd_train.training.distributed import micro_batches


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """The rows of one optimiser step and this process's share of them.

    Attributes:
        rows: all rows of the step, over all processes.
        numbers: the index of each of ``rows`` in the training set, from 0.
        micro_batches: the positions in ``rows`` of each micro-batch of this process.
    """

    rows: Sequence[LabelledTokens]
    numbers: Sequence[int]
    micro_batches: Sequence[Sequence[int]]

    @property
    def real_share(self) -> float:
        """Share of real tokens if the step were padded as one batch, in (0, 1]."""
        lengths = [len(window) for row in self.rows for window in row.tokens.windows]
        return sum(lengths) / (max(lengths) * len(lengths))


def step_batches(
    training: Training,
    rows: Sequence[LabelledTokens],
    *,
    batch_size: int,
    accumulate: int,
    first: int,
) -> Iterator[tuple[int, StepBatch]]:
    """Each step from ``first`` on with its batch.

    A micro-batch has no more windows of texts than it would have texts without windows, so it
    takes no more memory. The steps of an epoch are as many.

    Args:
        training: gives the number of steps, the seed and the processes, and augments the rows.
        rows: the training set.
        batch_size: rows of a step, over all processes and micro-batches.
        accumulate: micro-batches of a step in each process.
        first: the first step, from 0.
    """
    context = training.context
    distributed = context.distributed
    lengths = [row.tokens.n_read for row in rows]
    parts = distributed.world_size * accumulate
    per_epoch = batches_per_epoch(len(rows), batch_size)
    order: list[list[int]] = []
    for step in range(first, training.total_steps):
        epoch, position = divmod(step, per_epoch)
        if not order or position == 0:
            order = epoch_batches(lengths, batch_size=batch_size, seed=context.seed, epoch=epoch)
        numbers = order[position]
        step_rows = training.rows_for([rows[i] for i in numbers], step)
        shares = micro_batches(
            window_counts(step_rows),
            world_size=distributed.world_size,
            rank=distributed.rank,
            accumulate=accumulate,
            most=-(-batch_size // parts),
        )
        yield step, StepBatch(rows=step_rows, numbers=numbers, micro_batches=shares)
