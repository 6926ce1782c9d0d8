"""How a batch is shared out among threads: whole rows to each, a few at a time.

A runtime splits every operator among its threads, one after another. Where a batch has rows enough
it is faster to give each thread rows of its own: nothing waits at every operator, and what a thread
works on stays in its own cache. Rows of like length go together, so that less padding is computed.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.text import Batch

# Tokens that a thread takes at a time. Measured with BERT-base on 2 cores with 1 MiB of cache each:
# from 128 to 512 it matters little; less loses in the products, more in the cache.
CHUNK_TOKENS = 256
# Rows do not always share out evenly; a thread may be idle for this share of the time at most.
_MOST_IDLE = 0.2


def chunks_of(mask_BS: NDArray[np.int64], threads: int) -> list[NDArray[np.intp]]:
    """The numbers of the rows of each chunk; one chunk where sharing out does not pay.

    There are as many chunks as a multiple of ``threads``, or one a row where there are fewer rows
    than that. The longest rows come first: the last chunk is then the least work, and threads that
    take the chunks in turn are done at about the same time.
    """
    B, S = mask_BS.shape
    rows = np.arange(B)
    most = math.ceil(B / threads) if threads > 1 else 0
    if B < 2 or threads < 2 or 1 - B / (most * threads) > _MOST_IDLE:
        return [rows]
    wanted = math.ceil(B * S / CHUNK_TOKENS / threads) * threads
    count = min(max(wanted, threads), B)
    by_length = np.argsort(-lengths_of(mask_BS), kind="stable")
    return list(np.array_split(by_length, count))


def part_of(batch: Batch, rows: NDArray[np.intp]) -> Batch:
    """Some rows of a batch, cut after the last column in which any of them has a real token."""
    S = max(1, int(lengths_of(batch.mask_BS[rows]).max()))
    return Batch(
        ids_BS=np.ascontiguousarray(batch.ids_BS[rows, :S]),
        mask_BS=np.ascontiguousarray(batch.mask_BS[rows, :S]),
        types_BS=np.ascontiguousarray(batch.types_BS[rows, :S]),
    )


def joined(parts: Sequence[NDArray[np.float32]], rows: Sequence[NDArray[np.intp]]
) -> NDArray[np.float32]:  # fmt: skip
    """The results of chunks in the order of the batch."""
    found = np.empty((sum(map(len, rows)), *parts[0].shape[1:]), np.float32)
    for part, numbers in zip(parts, rows, strict=True):
        found[numbers] = part
    return found


def lengths_of(mask_BS: NDArray[np.int64]) -> NDArray[np.intp]:
    """Of each row, the column after its last real token."""
    S = mask_BS.shape[1]
    return np.where(mask_BS.any(1), S - mask_BS[:, ::-1].argmax(1), 0)
