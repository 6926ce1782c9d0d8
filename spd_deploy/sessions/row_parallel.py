"""Splits a batch by rows among threads (data parallelism), in chunks of a few rows.

A runtime splits each operator among its threads. With enough rows it is faster to give each thread
rows of its own: threads do not wait for each other at each operator, and a thread's data stays in
its cache. A chunk has rows of similar length, so that less padding is computed.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.text import Batch

# Tokens of a chunk. Measured with BERT-base on 2 cores with 1 MiB of cache each:
# 128 to 512 make little difference; fewer make slower products, more exceed the cache.
CHUNK_TOKENS = 256
# Largest share of the time that a thread may be idle where rows do not divide evenly.
_MAX_IDLE = 0.2


def chunks_of(mask_BS: NDArray[np.int64], threads: int) -> list[NDArray[np.intp]]:
    """The row indices of each chunk; one chunk where splitting does not pay.

    The number of chunks is a multiple of ``threads``, or the number of rows where that is smaller.
    The longest rows come first. The last chunks are then the smallest, and threads that take chunks
    one by one end at about the same time.
    """
    B, S = mask_BS.shape
    rows = np.arange(B)
    most = math.ceil(B / threads) if threads > 1 else 0
    if B < 2 or threads < 2 or 1 - B / (most * threads) > _MAX_IDLE:
        return [rows]
    wanted = math.ceil(B * S / CHUNK_TOKENS / threads) * threads
    count = min(max(wanted, threads), B)
    by_length = np.argsort(-lengths_of(mask_BS), kind="stable")
    return list(np.array_split(by_length, count))


def part_of(batch: Batch, rows: NDArray[np.intp]) -> Batch:
    """Some rows of a batch, without the columns that are padding in all of them."""
    S = max(1, int(lengths_of(batch.mask_BS[rows]).max()))
    return Batch(
        ids_BS=np.ascontiguousarray(batch.ids_BS[rows, :S]),
        mask_BS=np.ascontiguousarray(batch.mask_BS[rows, :S]),
        types_BS=np.ascontiguousarray(batch.types_BS[rows, :S]),
    )


def joined(parts: Sequence[NDArray[np.float32]], rows: Sequence[NDArray[np.intp]]
) -> NDArray[np.float32]:  # fmt: skip
    """Concatenate the results of chunks in the order of the batch."""
    found = np.empty((sum(map(len, rows)), *parts[0].shape[1:]), np.float32)
    for part, numbers in zip(parts, rows, strict=True):
        found[numbers] = part
    return found


def lengths_of(mask_BS: NDArray[np.int64]) -> NDArray[np.intp]:
    """Length of each row: the column after its last real token."""
    S = mask_BS.shape[1]
    return np.where(mask_BS.any(1), S - mask_BS[:, ::-1].argmax(1), 0)
