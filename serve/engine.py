"""One thread that owns the session and runs batch after batch, whatever happens in one of them.

It knows token ids and logits, no text and no HTTP. A batch that fails is split in two and tried
again, down to single rows, so that only the row at fault fails; where the choice of a batch fails,
the oldest row runs alone. No exception ends the thread. A row whose client has left is not run.
Every future that :meth:`Engine.submit` hands out is settled or cancelled in the end, also where
the session never comes back: whoever watches the engine calls :meth:`Engine.give_up_stalled`.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve.batching import padded_tokens, take
from serve.health import CHECK_EVERY_S, Health
from serve.metrics import Fault, Metrics
from serve.waiting import BatchResult, Waiting, fail, requests_of
from spd_deploy.domain.errors import EngineFailed, NotReady, SpdError, reason_of
from spd_deploy.domain.text import Batch, Tokens
from spd_deploy.sessions.protocol import Session

_log = logging.getLogger(__name__)
_WEIGHT_OF_NEWEST = 0.2


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
        known_good: Tokens,
        max_padded_tokens: int,
        max_rows: int,
        stall_timeout_s: float,
        metrics: Metrics,
        choose: Choose = take,
    ) -> None:
        """Start the thread.

        Args:
            session: run by that thread alone from now on, and closed by :meth:`close`.
            pad: makes a batch of rows.
            outputs: how many logits a row must have.
            known_good: a row that a sound model answers; run where the model is in doubt.
            max_padded_tokens: limit of a batch, padding included.
            max_rows: limit of a batch.
            stall_timeout_s: a batch that runs longer is given up.
            metrics: told of every batch and failure.
            choose: picks the rows of a batch.
        """
        self._session, self._pad, self._choose = session, pad, choose
        self._outputs, self._known_good = outputs, known_good
        self._max_padded_tokens, self._max_rows = max_padded_tokens, max_rows
        self._metrics = metrics
        self.health = Health(stall_timeout_s=stall_timeout_s)
        metrics.watch_model(lambda: self.health.running_s)
        self._waiting: list[Waiting] = []
        self._in_model: Sequence[Waiting] = ()
        self._changed = threading.Condition()
        self._closing = False
        self.seconds_per_token = 0.0
        self._thread = threading.Thread(target=self._work, name="spd-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive()

    def submit(self, rows: Sequence[Tokens], request_id: str = "-") -> "list[Future[BatchResult]]":
        """Queue rows; cancelling a future takes its row out again.

        Raises:
            NotReady: the engine is closing.
        """
        now = time.perf_counter()
        entries = [
            Waiting(row=row, since=now, request_id=request_id, future=Future()) for row in rows
        ]
        with self._changed:
            if self._closing:
                raise _closed()
            self._waiting.extend(entries)
            self._changed.notify()
        return [entry.future for entry in entries]

    def give_up_stalled(self) -> None:
        """Where a batch does not come back, fail its rows and all that wait behind it."""
        if not self.health.stalled:
            return
        rows, self._in_model = self._in_model, ()
        if rows:
            seconds = f"{self.health.running_s:.0f} s"
            _log.error("hangs in the model for %s; requests: %s", seconds, requests_of(rows))
            self._count(Fault.STALLED)
            fail(rows, EngineFailed("the model does not answer", fix="send it to another server"))
        with self._changed:
            left, self._waiting = self._waiting, []
        fail(left, NotReady("the model does not answer", fix="send it to another server"))

    def close(self, timeout_s: float) -> bool:
        """Let the running batch finish, fail what still waits, and close the session.

        Returns:
            False where the batch did not finish in time; the session is left open then.
        """
        with self._changed:
            self._closing = True
            left, self._waiting = self._waiting, []
            self._changed.notify()
        fail(left, _closed())
        self._thread.join(timeout_s)
        if self.alive:
            return False
        self._session.close()
        return True

    def _work(self) -> None:
        """The thread: batch after batch until :meth:`close`."""
        while not self._closing:
            self._run(self._next())
            if self.health.failing:
                self._check()

    def _next(self) -> list[Waiting]:
        """Wait for work and take a batch of it; empty when there is none to run after all."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._closing,
                timeout=CHECK_EVERY_S if self.health.failing else None,
            )
            try:
                rows, self._waiting = self._choose(
                    self._waiting,
                    max_padded_tokens=self._max_padded_tokens,
                    max_rows=self._max_rows,
                )
            except BaseException as err:  # noqa: BLE001  # which row is at fault is not known
                self._tell(self._waiting, err)
                rows, self._waiting = self._waiting[:1], self._waiting[1:]
        return [entry for entry in rows if entry.future.set_running_or_notify_cancel()]

    def _run(self, rows: Sequence[Waiting]) -> None:
        """Run the rows; where that fails, run each half on its own."""
        if not rows:
            return
        try:
            self._forward(rows)
        except BaseException as err:  # noqa: BLE001  # the thread must outlive any failure
            self._tell(rows, err)
            self._doubt()
            if len(rows) == 1:
                fail(rows, _failure(err))
                return
            middle = len(rows) // 2
            self._run([row for row in rows[:middle] if not row.future.done()])
            self._run([row for row in rows[middle:] if not row.future.done()])

    def _forward(self, rows: Sequence[Waiting]) -> None:
        """Pad, run, check, and hand each row its own logits."""
        start = time.perf_counter()
        batch = self._pad([entry.row for entry in rows])
        self._in_model = rows
        try:
            logits_BC = self._logits(batch)
        finally:
            self._in_model = ()
        run_s = time.perf_counter() - start
        finite_B: list[bool] = np.asarray(np.isfinite(logits_BC).all(axis=1)).tolist()
        for entry, logits_C, finite in zip(rows, logits_BC, finite_B, strict=True):
            if finite:
                entry.answer(
                    BatchResult(logits_C=logits_C, queue_s=start - entry.since, run_s=run_s)
                )
        if any(finite_B):
            self.health.succeeded()
        if not all(finite_B):
            bad = [entry for entry, finite in zip(rows, finite_B, strict=True) if not finite]
            self._refuse(bad, all_of_batch=not any(finite_B))
        self._learn_pace(run_s / padded_tokens(rows))
        self._metrics.batch_ran(len(rows), real_share=batch.real_share, run_s=run_s)

    def _logits(self, batch: Batch) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the session, which is watched meanwhile."""
        self.health.began(batch.ids_BS.size * self.seconds_per_token)
        try:
            logits_BC = self._session.run(batch)
        finally:
            self.health.ended()
        if logits_BC.shape != (len(batch), self._outputs):
            raise EngineFailed(
                "the model answered with logits of another shape",
                got=f"{logits_BC.shape}, expected {(len(batch), self._outputs)}",
                fix="export the model again",
            )
        return logits_BC

    def _refuse(self, rows: Sequence[Waiting], *, all_of_batch: bool) -> None:
        """Rows whose logits are no numbers: a fault of theirs or, where all are, of the model's."""
        error = EngineFailed("the model gave a score that is not a number", fix="see the log")
        self._tell(rows, error, Fault.NOT_FINITE)
        if all_of_batch:
            self._doubt()
        fail(rows, error)

    def _doubt(self) -> None:
        """A batch failed; after several, find out who is at fault before they are answered."""
        self.health.failed()
        if self.health.in_doubt:
            self._check()

    def _check(self) -> None:
        """Find out by an input that is known to be good whether the model is at fault."""
        reason = "its scores are not numbers"
        try:
            good = bool(np.isfinite(self._logits(self._pad([self._known_good]))).all())
        except BaseException as err:  # noqa: BLE001  # the thread must outlive any failure
            good, reason = False, reason_of(err)
        if self.health.checked(good=good):
            if good:
                _log.warning("the model answers again: ready")
            else:
                _log.error("the model fails on what it answered before: not ready; %s", reason)

    def _learn_pace(self, seconds_per_token: float) -> None:
        """Follow the time a padded token takes; the first batch counts in full."""
        weight = _WEIGHT_OF_NEWEST if self.seconds_per_token else 1.0
        self.seconds_per_token += weight * (seconds_per_token - self.seconds_per_token)

    def _tell(
        self, rows: Sequence[Waiting], err: BaseException, fault: Fault = Fault.EXCEPTION
    ) -> None:
        """Log and count what went wrong; a bug that concerns one row with its traceback."""
        trace = len(rows) == 1 and not isinstance(err, SpdError)
        _log.error(
            "failed in the model: %s; requests: %s",
            reason_of(err),
            requests_of(rows),
            exc_info=err if trace else None,
        )
        self._count(fault)

    def _count(self, fault: Fault) -> None:
        """Count a failure, which must not cost the others their answer."""
        with contextlib.suppress(Exception):
            self._metrics.engine_failed(fault)


def _failure(err: BaseException) -> EngineFailed:
    """What a row's client is told of an error that is none of ours."""
    return EngineFailed(
        "the model failed on this input", got=type(err).__name__, fix="see the server's log"
    )


def _closed() -> NotReady:
    """The engine takes no more work."""
    return NotReady("the server is shutting down", fix="send the request to another server")
