"""A row of token ids on its way through the engine, and what comes of it."""

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
    """One row's logits ``[C]``, how long it waited, and how long its batch ran."""

    logits_C: NDArray[np.float32]
    queue_s: float
    run_s: float


@dataclass(eq=False, kw_only=True, slots=True)
class Waiting:
    """A row in the queue or in the model."""

    row: Tokens
    since: float
    request_id: str
    future: "Future[BatchResult]"

    @property
    def tokens(self) -> int:
        """Its length."""
        return len(self.row)

    @property
    def gone(self) -> bool:
        """Whether its client has left."""
        return self.future.cancelled()

    def answer(self, ran: BatchResult) -> None:
        """Hand out its logits, unless it was settled meanwhile."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(ran)


def fail(entries: Sequence[Waiting], error: SpdError) -> None:
    """Settle every entry that is not settled yet."""
    for entry in entries:
        with contextlib.suppress(InvalidStateError):  # its client may leave at this very moment
            entry.future.set_exception(error)


def requests_of(entries: Sequence[Waiting]) -> str:
    """The ids of the requests that the entries belong to, for a line of the log."""
    return ", ".join(dict.fromkeys(entry.request_id for entry in entries))
