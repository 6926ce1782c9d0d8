"""Which of the waiting rows run next: a pure choice.

A session runs its rows padded to the longest, so a batch costs rows times width. The choice is
made from all that wait at that moment and never waits for more: when the model is idle a lone row
runs at once, and while it is busy the next batch grows by itself.

The row that has waited longest is always in the batch, so the row at place n runs at the latest
with the n-th batch. It is joined by the rows nearest to it in length, as long as no row adds more
padding than tokens of its own: a short text does not pay for a long one that came with it.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Entry(Protocol):
    """Something that waits for its batch."""

    @property
    def tokens(self) -> int:
        """Its length."""
        ...

    @property
    def gone(self) -> bool:
        """Whether its client has left."""
        ...


E = TypeVar("E", bound=Entry)


def take(waiting: Sequence[E], *, max_padded_tokens: int, max_rows: int) -> tuple[list[E], list[E]]:
    """The rows to run next, and those left, both in order of arrival.

    Entries whose client has left are in neither. The oldest entry is taken even where it alone is
    wider than ``max_padded_tokens``; keeping such a row out is admission's work.
    """
    live = [entry for entry in waiting if not entry.gone]
    if not live:
        return [], []
    by_length = sorted(range(len(live)), key=lambda i: (live[i].tokens, i))
    lengths = [live[i].tokens for i in by_length]
    low, high = _run_around(by_length.index(0), lengths, max_padded_tokens, max_rows)
    chosen = set(by_length[low:high])
    rows = [entry for i, entry in enumerate(live) if i in chosen]
    return rows, [entry for i, entry in enumerate(live) if i not in chosen]


def padded_tokens(rows: Sequence[Entry]) -> int:
    """What a batch costs: its rows, all as wide as the widest."""
    return len(rows) * max(row.tokens for row in rows)


def _run_around(
    start: int, lengths: Sequence[int], max_padded_tokens: int, max_rows: int
) -> tuple[int, int]:
    """The run ``[low, high)`` of sorted lengths that grows from ``start`` to its best neighbour."""
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
    """Padding that one more entry brings to a batch; None where it may not join."""
    padded = (rows + 1) * max(width, tokens)
    padding = padded - rows * width - tokens
    return padding if padded <= max_padded_tokens and padding <= tokens else None
