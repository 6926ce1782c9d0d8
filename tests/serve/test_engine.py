"""The engine: the right logits to the right row, whatever fails in which step of its loop."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serve.batching import BatchResult, QueueEntry, next_batch
from serve.engine import Engine
from serve.metrics import BatchFault, Metrics, ModelMetrics
from spd_deploy.domain.errors import EngineFailed, NotReady
from spd_deploy.domain.text import Batch, Tokens, pad
from tests.serve.fakes import PATIENCE_S, FakeSession, formula, tokens

BAD = 99
KNOWN_GOOD = tokens(2, 3, 4)
ERRORS = [ValueError, MemoryError, asyncio.CancelledError, SystemExit, KeyboardInterrupt]


class Broken(FakeSession):
    """A session that answers some batches with logits of the shape it is told."""

    def __init__(self, shape_of: Callable[[int], tuple[int, ...]]) -> None:
        super().__init__()
        self._shape_of = shape_of

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of the wrong shape for a batch that holds the bad row."""
        logits_BC = super().run(batch)
        bad = bool((batch.ids_BS == BAD).any())
        return np.zeros(self._shape_of(len(batch)), np.float32) if bad else logits_BC


class BrokenMetrics(ModelMetrics):
    """Metrics that fail whatever they are told."""

    def __init__(self) -> None:
        self.watch_model = lambda **_: None  # type: ignore[method-assign]

    def batch_ran(
        self, rows: int, *, tokens: int, real_share: float, fill: float, run_s: float
    ) -> None:
        """Fail."""
        raise OSError("no disk")

    def engine_failed(self, fault: BatchFault) -> None:
        """Fail."""
        raise OSError("no disk")


def padded(rows: Sequence[Tokens]) -> Batch:
    return pad(rows, pad_id=0)


def engine_of(
    session: FakeSession,
    *,
    pad: Callable[[Sequence[Tokens]], Batch] = padded,
    metrics: ModelMetrics | None = None,
    **options: object,
) -> Engine:
    return Engine(
        session,
        pad,
        outputs=2,
        known_good=KNOWN_GOOD,
        stall_timeout_s=60,
        max_padded_tokens=64,
        max_rows=8,
        metrics=metrics or Metrics().of_model("fake"),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def closing() -> Iterator[list[Engine]]:
    """Engines that are closed at the end, each with its thread ended by then."""
    engines: list[Engine] = []
    yield engines
    assert all(engine.close(PATIENCE_S) for engine in engines)


def queued_together(
    engine: Engine, session: FakeSession, rows: Sequence[Tokens]
) -> list[Future[BatchResult]]:
    """Queue rows while the engine is busy, so that they run in one batch where they can."""
    session.gate.close()
    busy = engine.submit([tokens(1, 1)])
    session.gate.wait_until_reached()
    futures = engine.submit(rows)
    session.gate.open()
    wait([*busy, *futures], PATIENCE_S)
    return futures


def refuse_bad(rows: Sequence[Sequence[int]], error: type[BaseException]) -> None:
    if any(BAD in row for row in rows):
        raise error("injected")


def assert_only_bad_failed(
    engine: Engine, rows: Sequence[Tokens], futures: Sequence[Future[BatchResult]]
) -> None:
    """Bad rows failed with our error, all others have their own logits, and the engine works."""
    for row, future in zip(rows, futures, strict=True):
        if BAD in row.ids:
            assert isinstance(future.exception(PATIENCE_S), EngineFailed | NotReady)
        else:
            np.testing.assert_array_equal(future.result(PATIENCE_S).logits_C, formula(row.ids))
    (after,) = engine.submit([tokens(5, 6)])
    np.testing.assert_array_equal(after.result(PATIENCE_S).logits_C, formula((5, 6)))
    assert engine.alive


MIXED = [tokens(2, 3), tokens(4, BAD), tokens(5, 6), tokens(7, 8, 9), tokens(BAD, 1)]


@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_in_the_model_fails_only_its_row(
    closing: list[Engine], error: type[BaseException]
) -> None:
    """A batch that raises, whatever it raises, is split until only the rows at fault fail."""
    session = FakeSession(lambda rows: refuse_bad(rows, error))
    closing.append(engine := engine_of(session))

    futures = queued_together(engine, session, MIXED)

    assert_only_bad_failed(engine, MIXED, futures)


@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_in_padding_fails_only_its_row(
    closing: list[Engine], error: type[BaseException]
) -> None:
    """A row that cannot be put into a batch does not take its neighbours with it."""

    def picky(rows: Sequence[Tokens]) -> Batch:
        refuse_bad([row.ids for row in rows], error)
        return padded(rows)

    session = FakeSession()
    closing.append(engine := engine_of(session, pad=picky))

    futures = queued_together(engine, session, MIXED)

    assert_only_bad_failed(engine, MIXED, futures)


@pytest.mark.parametrize(
    "shape_of",
    [lambda b: (b, 3), lambda b: (b - 1, 2), lambda b: (b + 1, 2), lambda b: (b,), lambda b: ()],
    ids=["classes", "fewer rows", "more rows", "flat", "scalar"],
)
def test_logits_of_another_shape_fail_only_their_row(
    closing: list[Engine], shape_of: Callable[[int], tuple[int, ...]]
) -> None:
    """Logits that do not fit their rows are never handed out."""
    session = Broken(shape_of)
    closing.append(engine := engine_of(session))

    futures = queued_together(engine, session, MIXED)

    assert_only_bad_failed(engine, MIXED, futures)


@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_in_the_choice_fails_no_row(
    closing: list[Engine], error: type[BaseException]
) -> None:
    """Where no batch can be chosen, the rows run one by one, oldest first."""

    def picky(
        waiting: Sequence[QueueEntry], *, max_padded_tokens: int, max_rows: int
    ) -> tuple[list[QueueEntry], list[QueueEntry]]:
        refuse_bad([entry.row.ids for entry in waiting], error)
        return next_batch(waiting, max_padded_tokens=max_padded_tokens, max_rows=max_rows)

    session = FakeSession()
    closing.append(engine := engine_of(session, choose=picky))

    futures = queued_together(engine, session, MIXED)

    for row, future in zip(MIXED, futures, strict=True):
        np.testing.assert_array_equal(future.result(PATIENCE_S).logits_C, formula(row.ids))
    assert all(len(rows) == 1 for rows in session.batches)


def test_a_fault_in_counting_fails_no_row(closing: list[Engine]) -> None:
    """An answer is given even where nobody can count it, and so is a failure."""
    session = FakeSession(lambda rows: refuse_bad(rows, ValueError))
    closing.append(engine := engine_of(session, metrics=BrokenMetrics()))

    futures = queued_together(engine, session, MIXED)

    assert_only_bad_failed(engine, MIXED, futures)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=40), max_size=20))
def test_every_row_gets_its_own_logits(rows: list[list[int]]) -> None:
    """Whatever is batched with what, row i's answer is the formula of row i."""
    session = FakeSession()
    engine = engine_of(session)
    try:
        futures = queued_together(engine, session, [tokens(*row) for row in rows])
        for row, future in zip(rows, futures, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_S).logits_C, formula(row))
    finally:
        assert engine.close(PATIENCE_S)


def test_waiting_rows_run_together(closing: list[Engine]) -> None:
    """While the model is busy the next batch grows; no timer closes it."""
    session = FakeSession()
    closing.append(engine := engine_of(session))

    queued_together(engine, session, [tokens(2, 3), tokens(4, 5), tokens(6, 7)])

    assert session.batches[1:] == [[(2, 3), (4, 5), (6, 7)]]


def test_a_cancelled_row_is_not_run(closing: list[Engine]) -> None:
    """A row whose client has left never reaches the model."""
    session = FakeSession()
    closing.append(engine := engine_of(session))
    session.gate.close()
    engine.submit([tokens(1, 1)])
    session.gate.wait_until_reached()
    gone, stays = engine.submit([tokens(2, 3), tokens(4, 5)])

    assert gone.cancel()
    session.gate.open()
    stays.result(PATIENCE_S)

    assert session.batches == [[(1, 1)], [(4, 5)]]


def test_closing_settles_every_row() -> None:
    """The batch that runs is answered, the rows that wait are refused, and so are new ones."""
    session = FakeSession()
    engine = engine_of(session)
    session.gate.close()
    (runs,) = engine.submit([tokens(1, 2)])
    session.gate.wait_until_reached()
    (waits,) = engine.submit([tokens(3, 4)])

    assert not engine.close(0.01)
    assert isinstance(waits.exception(PATIENCE_S), NotReady)
    assert not session.closed
    with pytest.raises(NotReady):
        engine.submit([tokens(5, 6)])

    session.gate.open()
    np.testing.assert_array_equal(runs.result(PATIENCE_S).logits_C, formula((1, 2)))
    assert engine.close(PATIENCE_S)
    assert session.closed


def test_a_row_cancelled_while_the_engine_closes_harms_nobody() -> None:
    """A client that leaves at the moment of closing does not keep the others from being told."""
    session = FakeSession()
    engine = engine_of(session)
    session.gate.close()
    engine.submit([tokens(1, 2)])
    session.gate.wait_until_reached()
    first, second = engine.submit([tokens(3, 4), tokens(5, 6)])
    first.cancel()

    assert not engine.close(0.01)

    assert isinstance(second.exception(PATIENCE_S), NotReady)
    session.gate.open()
    assert engine.close(PATIENCE_S)


@given(st.lists(st.integers(1, 16), min_size=1, max_size=8))
@settings(deadline=None, max_examples=20)
def test_tokens_that_wait_are_charged_for_their_padding(lengths: list[int]) -> None:
    """A token of a row takes what a padded one does, times the padded tokens a token has had."""
    session = FakeSession()
    engine = engine_of(session)
    rows = [tokens(*range(2, 2 + length)) for length in lengths]

    queued_together(engine, session, rows)
    assert engine.close(PATIENCE_S)

    padded_tokens = real_tokens = 0.0
    for batch in session.batches:
        padded_tokens = 0.8 * padded_tokens + len(batch) * max(map(len, batch))
        real_tokens = 0.8 * real_tokens + sum(map(len, batch))
    ratio = engine.seconds_per_token / engine.seconds_per_padded_token
    assert ratio == pytest.approx(padded_tokens / real_tokens)
    assert engine.wait_s(30) == pytest.approx(30 * engine.seconds_per_token)
