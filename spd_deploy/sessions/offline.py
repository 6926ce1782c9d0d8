"""Runs many rows through a session without a server, for evaluation and prediction."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.progress import Advance
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.domain.window_pooling import pooled_rows
from spd_deploy.sessions.protocol import Session

MAX_PADDED_TOKENS = 4096


def logits_of(
    session: Session, tokenizer: Tokenizer, rows: Sequence[Tokens], advance: Advance | None = None
) -> NDArray[np.float32]:
    """Logits ``[rows, C]`` in the order of ``rows``; rows of similar length run in one batch.

    Each window of a text is a row of a batch. ``advance`` is told of texts that are answered.
    """
    windows = [window for row in rows for window in row.windows]
    counts = [len(row.windows) for row in rows]
    text_of, left = np.repeat(np.arange(len(rows)), counts), np.array(counts)
    found: list[NDArray[np.float32] | None] = [None] * len(windows)
    for batch in batches_within([len(window) for window in windows], MAX_PADDED_TOKENS):
        logits_BC = session.run(tokenizer.pad([windows[i] for i in batch]))
        for i, logits_C in zip(batch, logits_BC, strict=True):
            found[i] = logits_C
        answered = np.count_nonzero(left)
        np.subtract.at(left, text_of[batch], 1)
        if advance is not None:
            advance(int(answered - np.count_nonzero(left)))
    return pooled_rows(np.stack([logits_C for logits_C in found if logits_C is not None]), rows)


def batches_within(lengths: Sequence[int], max_padded_tokens: int) -> Iterator[list[int]]:
    """Split row indices into batches of at most ``max_padded_tokens``, longest rows first.

    A row that is longer than that gets a batch of its own.
    """
    batch: list[int] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and width * (len(batch) + 1) > max_padded_tokens:
            yield batch
            batch = []
        if not batch:
            width = lengths[row]
        batch.append(row)
    if batch:
        yield batch
