"""A tokenised text in the engine's queue, and the result of its batch."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

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


@dataclass(eq=False, kw_only=True, slots=True)
class QueueEntry:
    """A row that waits or runs.

    Attributes:
        row: its token ids.
        since: when it was queued, by ``time.perf_counter``.
        request_id: of the request that it belongs to, for the log.
        future: gets the result; the client's departure cancels it.
    """

    row: Tokens
    since: float
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


def fail(entries: Sequence[QueueEntry], error: SpdError) -> None:
    """End every entry that is not done with ``error``."""
    for entry in entries:
        with contextlib.suppress(InvalidStateError):  # cancelled at this moment
            entry.future.set_exception(error)


def requests_of(entries: Sequence[QueueEntry]) -> str:
    """The request ids of the entries, each once, for a line of the log."""
    return ", ".join(dict.fromkeys(entry.request_id for entry in entries))
