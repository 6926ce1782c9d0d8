"""The engine's queue: its entries, and which of them are the next batch (dynamic batching).

A session pads the rows of a batch to the longest, so a batch costs rows times its longest row. A
batch is chosen from the rows that wait at that moment; nothing waits for more rows to arrive. An
idle model therefore runs a single row at once, and batches grow while the model is busy.

The row whose turn it is (``fairness.py``) is always in the batch, so the row at position n by turn
runs in the n-th batch at the latest. Rows of similar length join it as long as no row adds more
padding than it has tokens. A short text therefore does not wait for a long one that arrived with
it.
"""

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.text import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchResult:
    """One row's logits ``[C]``, its seconds in the queue, and the seconds that its batch ran."""

    logits_C: NDArray[np.float32]
    queue_s: float
    run_s: float


def slowest_of(results: Sequence[BatchResult]) -> BatchResult:
    """The result that waited and ran for the longest time."""
    return max(results, key=lambda one: one.queue_s + one.run_s)


@dataclass(eq=False, kw_only=True, slots=True)
class QueueEntry:
    """A row that waits or runs.

    Attributes:
        row: its token ids.
        since: when it was queued, by ``time.perf_counter``; that of all rows of its request.
        turn: its place in the order of requests; the smallest runs next.
        request_id: of the request that it belongs to, for the log.
        future: gets the result; the client's departure cancels it.
    """

    row: Tokens
    since: float
    turn: float
    request_id: str
    future: "Future[BatchResult]"

    @property
    def tokens(self) -> int:
        """Length of the row in tokens."""
        return len(self.row)

    @property
    def cancelled(self) -> bool:
        """Whether the client has closed its connection."""
        return self.future.cancelled()

    def set_result(self, result: BatchResult) -> None:
        """Hand out the logits, unless the future is done or cancelled already."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(result)


class Entry(Protocol):
    """A row that waits for its batch."""

    @property
    def tokens(self) -> int:
        """Length in tokens, special ones included and padding not."""
        ...

    @property
    def turn(self) -> float:
        """Its place in the order of requests; the smallest runs next."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the client has closed its connection."""
        ...


E = TypeVar("E", bound=Entry)


def next_batch(
    waiting: Sequence[E], *, max_padded_tokens: int, max_rows: int
) -> tuple[list[E], list[E]]:
    """The rows to run next and the rows that stay, both in order of arrival.

    Cancelled entries are in neither. The entry whose turn it is, is taken even if it alone exceeds
    ``max_padded_tokens``; admission refuses rows that no batch may hold before they are queued.
    """
    live = [entry for entry in waiting if not entry.cancelled]
    if len(live) <= 1:
        return live, []
    head = min(range(len(live)), key=lambda i: live[i].turn)
    by_length = sorted(range(len(live)), key=lambda i: (live[i].tokens, i))
    lengths = [live[i].tokens for i in by_length]
    low, high = _grow(by_length.index(head), lengths, max_padded_tokens, max_rows)
    chosen = set(by_length[low:high])
    rows = [entry for i, entry in enumerate(live) if i in chosen]
    return rows, [entry for i, entry in enumerate(live) if i not in chosen]


def fail(entries: Sequence[QueueEntry], error: SpdError) -> None:
    """End every entry that is not done with ``error``."""
    for entry in entries:
        with contextlib.suppress(InvalidStateError):  # cancelled at this moment
            entry.future.set_exception(error)


def requests_of(entries: Sequence[QueueEntry]) -> str:
    """The request ids of the entries, each once, for a line of the log."""
    return ", ".join(dict.fromkeys(entry.request_id for entry in entries))


def requests_in(entries: Iterable[QueueEntry]) -> int:
    """The number of requests that the entries belong to."""
    return len({entry.since for entry in entries})


def padded_tokens(rows: Sequence[Entry]) -> int:
    """Tokens of a batch with padding: rows times the longest row."""
    return len(rows) * max(row.tokens for row in rows)


def _grow(
    start: int, lengths: Sequence[int], max_padded_tokens: int, max_rows: int
) -> tuple[int, int]:
    """The range ``[low, high)`` of sorted lengths; it grows from ``start`` to the cheaper side."""
    low, high = start, start + 1
    while high - low < max_rows:
        rows, width = high - low, lengths[high - 1]
        shorter = _padding(rows, width, lengths[low - 1], max_padded_tokens) if low > 0 else None
        longer = (
            _padding(rows, width, lengths[high], max_padded_tokens) if high < len(lengths) else None
        )
        if shorter is not None and (longer is None or shorter < longer):
            low -= 1
        elif longer is not None:
            high += 1
        else:
            break
    return low, high


def _padding(rows: int, width: int, tokens: int, max_padded_tokens: int) -> int | None:
    """Padding tokens that one more entry adds to a batch; None where it may not join."""
    padded = (rows + 1) * max(width, tokens)
    padding = padded - rows * width - tokens
    return padding if padded <= max_padded_tokens and padding <= tokens else None
