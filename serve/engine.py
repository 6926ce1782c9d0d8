"""One thread that owns the session and runs batch after batch, whatever happens in one of them.

It knows token ids and logits, no text and no HTTP. A batch that fails is split in two and tried
again, down to single rows, so that only the row at fault fails; where the choice of a batch fails,
the oldest row runs alone. No exception ends the thread. A row whose client has left is not run.
Every future that :meth:`Engine.submit` hands out is settled or cancelled in the end.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve.batching import padded_tokens, take
from serve.metrics import Metrics
from spd_deploy.domain.errors import EngineFailed, NotReady, SpdError
from spd_deploy.domain.text import Batch, Tokens
from spd_deploy.sessions.protocol import Session

_log = logging.getLogger(__name__)
_WEIGHT_OF_NEWEST = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """One row's logits ``[C]``, how long it waited, and how long its batch ran."""

    logits_C: NDArray[np.float32]
    queue_s: float
    run_s: float


@dataclass(eq=False, slots=True)
class Waiting:
    """A row in the queue."""

    row: Tokens
    since: float
    future: "Future[Ran]"

    @property
    def tokens(self) -> int:
        """Its length."""
        return len(self.row)

    @property
    def gone(self) -> bool:
        """Whether its client has left."""
        return self.future.cancelled()


class Choose(Protocol):
    """Picks the next batch, as :func:`serve.batching.take` does."""

    def __call__(
        self, waiting: Sequence[Waiting], *, max_padded_tokens: int, max_rows: int
    ) -> tuple[list[Waiting], list[Waiting]]:
        """The rows to run, and those left."""
        ...


class Engine:
    """The queue before a session, and the thread that works it off."""

    def __init__(
        self,
        session: Session,
        pad: Callable[[Sequence[Tokens]], Batch],
        *,
        outputs: int,
        max_padded_tokens: int,
        max_rows: int,
        metrics: Metrics,
        choose: Choose = take,
    ) -> None:
        """Start the thread.

        Args:
            session: run by that thread alone from now on, and closed by :meth:`close`.
            pad: makes a batch of rows.
            outputs: how many logits a row must have.
            max_padded_tokens: limit of a batch, padding included.
            max_rows: limit of a batch.
            metrics: told of every batch and failure.
            choose: picks the rows of a batch.
        """
        self._session, self._pad, self._choose = session, pad, choose
        self._outputs = outputs
        self._max_padded_tokens, self._max_rows = max_padded_tokens, max_rows
        self._metrics = metrics
        self._waiting: list[Waiting] = []
        self._changed = threading.Condition()
        self._closing = False
        self.seconds_per_token = 0.0
        self._thread = threading.Thread(target=self._work, name="spd-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()

    def submit(self, rows: Sequence[Tokens]) -> "list[Future[Ran]]":
        """Queue rows; cancelling a future takes its row out again.

        Raises:
            NotReady: the engine is closing.
        """
        now = time.perf_counter()
        entries = [Waiting(row=row, since=now, future=Future()) for row in rows]
        with self._changed:
            if self._closing:
                raise _closed()
            self._waiting.extend(entries)
            self._changed.notify()
        return [entry.future for entry in entries]

    def close(self, timeout_s: float) -> bool:
        """Let the running batch finish, fail what still waits, and close the session.

        Returns:
            False where the batch did not finish in time; the session is left open then.
        """
        with self._changed:
            self._closing = True
            left, self._waiting = self._waiting, []
            self._changed.notify()
        _fail(left, _closed())
        self._thread.join(timeout_s)
        if self.alive:
            return False
        self._session.close()
        return True

    def _work(self) -> None:
        """The thread: batch after batch until :meth:`close`."""
        while not self._closing:
            self._run(self._next())

    def _next(self) -> list[Waiting]:
        """Wait for work and take a batch of it; empty when there is none to run after all."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            try:
                rows, self._waiting = self._choose(
                    self._waiting,
                    max_padded_tokens=self._max_padded_tokens,
                    max_rows=self._max_rows,
                )
            except BaseException as err:  # noqa: BLE001  # which row is at fault is not known
                self._failure(err)
                rows, self._waiting = self._waiting[:1], self._waiting[1:]
        return [entry for entry in rows if entry.future.set_running_or_notify_cancel()]

    def _run(self, rows: Sequence[Waiting]) -> None:
        """Run the rows; where that fails, run each half on its own."""
        if not rows:
            return
        try:
            self._forward(rows)
        except BaseException as err:  # noqa: BLE001  # the thread must outlive any failure
            failure = self._failure(err)
            if len(rows) == 1:
                _fail(rows, failure)
                return
            middle = len(rows) // 2
            self._run([row for row in rows[:middle] if not row.future.done()])
            self._run([row for row in rows[middle:] if not row.future.done()])

    def _forward(self, rows: Sequence[Waiting]) -> None:
        """Pad, run, check, and hand each row its own logits."""
        start = time.perf_counter()
        batch = self._pad([entry.row for entry in rows])
        logits_BC = self._session.run(batch)
        run_s = time.perf_counter() - start
        if logits_BC.shape != (len(rows), self._outputs):
            raise EngineFailed(
                "the model answered with logits of another shape",
                got=f"{logits_BC.shape}, expected {(len(rows), self._outputs)}",
                fix="export the model again",
            )
        for entry, logits_C in zip(rows, logits_BC, strict=True):
            entry.future.set_result(
                Ran(logits_C=logits_C, queue_s=start - entry.since, run_s=run_s)
            )
        self._learn_pace(run_s / padded_tokens(rows))
        self._metrics.batch_ran(len(rows), real_share=batch.real_share, run_s=run_s)

    def _learn_pace(self, seconds_per_token: float) -> None:
        """Follow the time a padded token takes; the first batch counts in full."""
        weight = _WEIGHT_OF_NEWEST if self.seconds_per_token else 1.0
        self.seconds_per_token += weight * (seconds_per_token - self.seconds_per_token)

    def _failure(self, err: BaseException) -> SpdError:
        """Log and count what went wrong; gives the error for those it concerns."""
        _log.error("a batch failed: %r", err)
        with contextlib.suppress(Exception):  # counting must not cost the others their answer
            self._metrics.engine_failed()
        return EngineFailed(
            "the model failed on this input", got=type(err).__name__, fix="see the server's log"
        )


def _fail(entries: Sequence[Waiting], error: SpdError) -> None:
    """Settle every entry that is not settled yet."""
    for entry in entries:
        with contextlib.suppress(InvalidStateError):  # its client may leave at this very moment
            entry.future.set_exception(error)


def _closed() -> NotReady:
    """The engine takes no more work."""
    return NotReady("the server is shutting down", fix="send the request to another server")
