"""The inference thread: it owns the session and runs one batch after the other.

The engine handles token ids and logits, and knows neither texts nor HTTP. A batch that fails is
split in two and run again, down to single rows, so that only the faulty row fails. Where choosing a
batch fails, the oldest row runs alone. No exception ends the thread. Cancelled rows are not run.

Every future of :meth:`Engine.submit` ends in a result, an error or a cancellation. For a batch that
hangs in the session, the app's watchdog calls :meth:`Engine.give_up_stalled`.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve.batching import (
    BatchResult,
    QueueEntry,
    fail,
    next_batch,
    padded_tokens,
    requests_in,
    requests_of,
)
from serve.exhausted import exhausted_by, no_more
from serve.fairness import FairClock
from serve.health import CHECK_EVERY_S, Health
from serve.metrics import BatchFault, ModelMetrics
from serve.pace import AveragePace
from spd_deploy.domain.errors import EngineFailed, NotReady, SpdError, reason_of
from spd_deploy.domain.text import Batch, Tokens
from spd_deploy.sessions.protocol import Session

_log = logging.getLogger(__name__)
# A single row may have as many, so a batch may too, however slow the model is.
_ALWAYS_TOKENS = 512


class ChooseBatch(Protocol):
    """Chooses the next batch; :func:`serve.batching.next_batch` is the one in use."""

    def __call__(
        self, waiting: Sequence[QueueEntry], *, max_padded_tokens: int, max_rows: int
    ) -> tuple[list[QueueEntry], list[QueueEntry]]:
        """The rows to run, and the rows that stay."""
        ...


class Engine:
    """A queue of rows, and the thread that runs them in a session."""

    def __init__(
        self,
        session: Session,
        pad: Callable[[Sequence[Tokens]], Batch],
        *,
        outputs: int,
        known_good: Tokens,
        max_padded_tokens: int,
        max_rows: int,
        max_batch_s: float = math.inf,
        stall_timeout_s: float,
        metrics: ModelMetrics,
        choose: ChooseBatch = next_batch,
    ) -> None:
        """Start the thread.

        Args:
            session: only this thread runs it from now on; :meth:`close` closes it.
            pad: pads rows to a batch.
            outputs: logits that each row must have.
            known_good: a row that a working model answers, to probe the model after failures.
            max_padded_tokens: most tokens of a batch, padding included.
            max_rows: most rows of a batch.
            max_batch_s: a batch of several rows takes so many seconds at most, by the pace so far.
            stall_timeout_s: a batch that runs longer counts as hung (:class:`Health`).
            metrics: counts batches and failures.
            choose: chooses the rows of a batch.
        """
        self._session, self._pad, self._choose = session, pad, choose
        self._outputs, self._known_good = outputs, known_good
        self._max_padded_tokens, self._max_rows = max_padded_tokens, max_rows
        self._max_batch_s = max_batch_s
        self._metrics = metrics
        self.health = Health(stall_timeout_s=stall_timeout_s)
        metrics.watch_model(
            running_s=lambda: self.health.running_s, oldest_wait_s=lambda: self.oldest_wait_s
        )
        self._waiting: list[QueueEntry] = []
        self._in_model: Sequence[QueueEntry] = ()
        self._lock = threading.Lock()  # of _waiting, _clock and _closing
        self._clock = FairClock()
        # Wakes the thread. It is written in C, and wakes it in a third of a Condition's time.
        self._changed: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._pace, self._padded_pace = AveragePace(), AveragePace()
        self._thread = threading.Thread(target=self._work, name="spd-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    @property
    def oldest_wait_s(self) -> float:
        """Seconds that the oldest row of the queue has waited; 0 where none waits."""
        with self._lock:
            since = next((entry.since for entry in self._waiting if not entry.cancelled), None)
        return 0.0 if since is None else time.perf_counter() - since

    @property
    def seconds_per_token(self) -> float:
        """Seconds for each token of the rows, whose batches are padded; 0 before the first batch.

        Times the tokens that wait it is the time that they take, padding included.
        """
        return self._pace.seconds

    @property
    def seconds_per_padded_token(self) -> float:
        """Seconds for each token of a batch, those of the padding among them; at first 0."""
        return self._padded_pace.seconds

    def wait_s(self, tokens: int) -> float:
        """Seconds until a request of so many tokens that comes now would be answered."""
        with self._lock:
            turn = self._clock.turn_of(tokens)
            before = sum(entry.tokens for entry in self._waiting if entry.turn <= turn)
        return self.health.left_s + (before + tokens) * self.seconds_per_token

    def submit(self, rows: Sequence[Tokens], request_id: str = "-") -> "list[Future[BatchResult]]":
        """Queue rows and return a future for each; cancelling a future removes its row.

        Raises:
            NotReady: the engine is closing.
        """
        now, tokens = time.perf_counter(), sum(map(len, rows))
        with self._lock:
            if self._closing:
                raise _closed()
            turn = self._clock.turn_of(tokens)
            entries = [
                QueueEntry(row=row, since=now, turn=turn, request_id=request_id, future=Future())
                for row in rows
            ]
            self._waiting.extend(entries)
        self._changed.put(None)
        return [entry.future for entry in entries]

    def give_up_stalled(self) -> None:
        """If the running batch hangs, fail its rows and all rows that wait behind it."""
        if not self.health.stalled:
            return
        rows, self._in_model = self._in_model, ()
        if rows:
            seconds = f"{self.health.running_s:.0f} s"
            _log.error(
                "a batch hangs in the model for %s; requests: %s", seconds, requests_of(rows)
            )
            self._count_fault(BatchFault.STALLED)
            fail(
                rows,
                EngineFailed("the model does not answer", fix="send the request to another server"),
            )
        with self._lock:
            left, self._waiting = self._waiting, []
        fail(left, NotReady("the model does not answer", fix="send the request to another server"))

    def close(self, timeout_s: float) -> bool:
        """Let the running batch finish, fail the rows that wait, and close the session.

        Returns:
            False where the batch did not finish within ``timeout_s``; the session stays open then.
        """
        with self._lock:
            self._closing = True
            left, self._waiting = self._waiting, []
        self._changed.put(None)
        fail(left, _closed())
        self._thread.join(timeout_s)
        if self.alive:
            return False
        self._session.close()
        return True

    def _work(self) -> None:
        """Run batches until :meth:`close`; this is the thread's function."""
        while not self._closing:
            self._run(self._next())
            if self.health.failing:
                self._probe_model()

    def _next(self) -> list[QueueEntry]:
        """Wait for rows and take a batch of them; empty where there is none to run."""
        if not self._waiting:
            with contextlib.suppress(Empty):
                self._changed.get(timeout=CHECK_EVERY_S if self.health.failing else None)
        with self._lock:
            try:
                rows, self._waiting = self._choose(
                    self._waiting,
                    max_padded_tokens=self._budget(),
                    max_rows=self._max_rows,
                )
                tokens = sum(entry.tokens for entry in rows)
                self._clock.ran(tokens, requests_in((*rows, *self._waiting)))
            except BaseException as err:  # noqa: BLE001  # the faulty row is not known
                self._log_failure(self._waiting, err)
                rows, self._waiting = self._waiting[:1], self._waiting[1:]
        return [entry for entry in rows if entry.future.set_running_or_notify_cancel()]

    def _budget(self) -> int:
        """Padded tokens of a batch: as many as the model runs in the time that a batch may take."""
        if self.seconds_per_padded_token * self._max_padded_tokens <= self._max_batch_s:
            return self._max_padded_tokens
        by_pace = int(self._max_batch_s / self.seconds_per_padded_token)
        return min(self._max_padded_tokens, max(_ALWAYS_TOKENS, by_pace))

    def _run(self, rows: Sequence[QueueEntry]) -> None:
        """Run the rows; if that fails, run each half separately."""
        if not rows:
            return
        try:
            self._forward(rows)
        except BaseException as err:  # noqa: BLE001  # the thread must outlive any failure
            self._log_failure(rows, err)
            self._suspect_model()
            if len(rows) == 1:
                fail(rows, _failure(err))
                return
            middle = len(rows) // 2
            self._run([row for row in rows[:middle] if not row.future.done()])
            self._run([row for row in rows[middle:] if not row.future.done()])

    def _forward(self, rows: Sequence[QueueEntry]) -> None:
        """Pad and run the rows, check their logits, and set each row's result."""
        start = time.perf_counter()
        self._in_model = rows
        try:
            logits_BC = self._logits([entry.row for entry in rows])
        finally:
            self._in_model = ()
        run_s = time.perf_counter() - start
        self._count_batch(rows, run_s)
        finite_B: list[bool] = np.asarray(np.isfinite(logits_BC).all(axis=1)).tolist()
        if any(finite_B):
            self.health.succeeded()
        for entry, logits_C, finite in zip(rows, logits_BC, finite_B, strict=True):
            if finite:
                entry.set_result(
                    BatchResult(logits_C=logits_C, queue_s=start - entry.since, run_s=run_s)
                )
        if not all(finite_B):
            bad = [entry for entry, finite in zip(rows, finite_B, strict=True) if not finite]
            self._fail_not_finite(bad, all_of_batch=not any(finite_B))

    def _logits(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the rows, padded; timed by :class:`Health` meanwhile."""
        self.health.began(len(rows) * max(map(len, rows)) * self.seconds_per_padded_token)
        try:
            batch = self._pad(rows)
            logits_BC = self._session.run(batch)
        finally:
            self.health.ended()
        if logits_BC.shape != (len(batch), self._outputs):
            raise EngineFailed(
                "the model's logits have the wrong shape",
                got=f"{logits_BC.shape}, expected {(len(batch), self._outputs)}",
                fix="export the model again",
            )
        return logits_BC

    def _fail_not_finite(self, rows: Sequence[QueueEntry], *, all_of_batch: bool) -> None:
        """Fail rows whose logits are NaN or infinite; if all rows are, suspect the model."""
        error = EngineFailed(
            "the model gave a score that is NaN or infinite",
            fix="send another text; if that fails too, read the server's log",
        )
        self._log_failure(rows, error, BatchFault.NOT_FINITE)
        if all_of_batch:
            self._suspect_model()
        fail(rows, error)

    def _suspect_model(self) -> None:
        """Count a failed batch; after several, probe the model before the rows are answered."""
        self.health.failed()
        if self.health.suspect:
            self._probe_model()

    def _probe_model(self) -> None:
        """Run the known good row, to learn whether the model or the input is at fault."""
        reason = "its scores are NaN or infinite"
        try:
            good = bool(np.isfinite(self._logits([self._known_good])).all())
        except BaseException as err:  # noqa: BLE001  # the thread must outlive any failure
            good, reason = False, reason_of(err)
        if self.health.checked(good=good):
            if good:
                _log.warning("the model answers again; the server is ready")
            else:
                _log.error(
                    "the model fails on a known good input; the server is not ready: %s", reason
                )

    def _log_failure(
        self,
        rows: Sequence[QueueEntry],
        err: BaseException,
        fault: BatchFault = BatchFault.EXCEPTION,
    ) -> None:
        """Log and count a failure; with its traceback where it is a bug that one row causes."""
        trace = len(rows) == 1 and not isinstance(err, SpdError)
        _log.error(
            "a batch failed in the model: %s; requests: %s",
            reason_of(err),
            requests_of(rows),
            exc_info=err if trace else None,
        )
        self._count_fault(fault)

    def _count_batch(self, rows: Sequence[QueueEntry], run_s: float) -> None:
        """Count a batch and learn its pace; an error of the metrics must not fail the rows.

        It comes before the results: once those have woken the event loop, this thread must wait at
        once, or the loop would wait for the interpreter's lock.
        """
        padded, tokens = padded_tokens(rows), sum(entry.tokens for entry in rows)
        self._padded_pace.learn(padded, run_s)
        self._pace.learn(tokens, run_s)
        with contextlib.suppress(Exception):
            real_share = tokens / padded
            fill = max(padded / self._max_padded_tokens, len(rows) / self._max_rows)
            self._metrics.batch_ran(
                len(rows), tokens=padded, real_share=real_share, fill=fill, run_s=run_s
            )

    def _count_fault(self, fault: BatchFault) -> None:
        """Count a failure; an error of the metrics must not fail the other rows."""
        with contextlib.suppress(Exception):
            self._metrics.engine_failed(fault)


def _failure(err: BaseException) -> SpdError:
    """The client's error for an exception of the runtime, whose text stays in the log."""
    if what := exhausted_by(err):
        return no_more(what)
    return EngineFailed(
        "the model failed on this input", got=type(err).__name__, fix="read the server's log"
    )


def _closed() -> NotReady:
    """The error of a request that comes while the engine closes."""
    return NotReady("the server is shutting down", fix="send the request to another server")
