"""Rows to batches of like length, so that little of what is computed is padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spd_deploy.domain.text import Tokenizer, Tokens
from spd_train.data.examples import Example

# Rows are sorted by length only within a window of this many batches, so that an epoch still
# mixes: two rows meet in a batch in some epochs and not in others.
WINDOW_BATCHES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTokens:
    """One example as the model reads it."""

    tokens: Tokens
    label: float


def tokenise(examples: Sequence[Example], tokenizer: Tokenizer) -> list[LabelledTokens]:
    """The examples as token ids, each cut to the tokenizer's length."""
    return [
        LabelledTokens(
            tokens=tokenizer.encode(example.text, example.pair),
            label=0.0 if example.label is None else example.label,
        )
        for example in examples
    ]


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Row indices of each batch of an epoch: every row once, like lengths together.

    A pure function of the seed and the epoch, so a resumed run sees the same batches. Only the
    last batch of a window may be smaller than ``batch_size``.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    batches: list[list[int]] = []
    window = batch_size * WINDOW_BATCHES
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window].tolist(), key=lambda row: lengths[row])
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in draw.permutation(len(batches))]


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """How many batches :func:`epoch_batches` makes: windows are whole numbers of batches."""
    return -(-rows // batch_size)


def by_length(lengths: Sequence[int], *, batch_size: int) -> list[list[int]]:
    """Row indices of batches for evaluation: the longest first, so that memory is known at once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
