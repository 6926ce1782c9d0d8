"""A full queue, megabytes to tokenise, long requests beside short ones, and deadlines."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serve.deadline import HEADER
from serve.engine import Engine
from serve.fairness import FairClock
from serve.metrics import Metrics
from serve.settings import ServeSettings
from spd_deploy.domain.text import Batch, pad
from tests.serve.clients import Exchange, ready, until
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served, tokens
from tests.serve.wire import Answer, Wire, listening, request

SMALL = ServeSettings(max_queue_items=2, max_queue_chars=20_000)


@pytest.fixture
def wire(tmp_path: Path, session: FakeSession) -> Iterator[Wire]:
    """A server of a short queue."""
    with listening(fake_served(tmp_path, session), SMALL) as found:
        yield found


def ask(value: object, *headers: str, path: str = "/v1/classify") -> bytes:
    return request("POST", path, *headers, body=json.dumps(value).encode())


def one(text: str = "a good film") -> dict[str, object]:
    return {"inputs": [{"text": text}]}


@contextlib.contextmanager
def busy(wire: Wire, session: FakeSession, count: int) -> Iterator[None]:
    """So many requests of one text are in the model or in its queue, until the block ends."""
    session.gate.close()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(wire.connect()) for _ in range(count)]
        for connection in waiting:
            connection.sendall(ask(one()))
        session.gate.wait_until_reached()
        give_up_at = time.perf_counter() + PATIENCE_S
        while wire.state.in_flight < count:
            assert time.perf_counter() < give_up_at
            time.sleep(0.005)
        yield
        session.gate.open()
        answers = [connection.recv(65_536) for connection in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


def test_a_full_queue_refuses_before_the_body_is_read(wire: Wire, session: FakeSession) -> None:
    """429 comes with Retry-After although the body never arrives, and probes are answered."""
    head = ask(one()).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    with busy(wire, session, 2), wire.connect() as connection:
        connection.sendall(head)
        refused = connection.recv(65_536)

        assert wire.state.in_flight == 2
        assert wire.say(request("GET", "/readyz"))[0].status == 200
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"retry-after: " in refused


def test_characters_fill_the_queue(tmp_path: Path, session: FakeSession) -> None:
    """Texts that are not tokenised yet count by their characters, and the rest is told to wait."""
    settings = ServeSettings(max_queue_chars=2_000, tokenizer_threads=1)
    long = {"inputs": [{"text": "a good film " * 85} for _ in range(2)]}

    async def story() -> list[int | None]:
        async with ready(fake_served(tmp_path, session), settings) as (app, state):
            asked = [Exchange(app, "/v1/classify", long) for _ in range(4)]
            for exchange in asked:
                await exchange.answer()
            assert state.opened
            await until(lambda: state.opened is not None and not state.opened.admission.held.chars)
            return [exchange.status for exchange in asked]

    statuses = asyncio.run(story())
    assert statuses[0] == 200
    assert 429 in statuses


def test_the_wait_for_a_tokeniser_is_told(wire: Wire) -> None:
    """A long text's answer and the metrics have the time before it was tokenised, and after."""
    (answer,) = wire.say(ask(one("a good film " * 200)))

    stages = dict(stage.split(";dur=") for stage in answer.headers["server-timing"].split(", "))
    assert list(stages) == ["tok_queue", "tok", "queue", "run"]
    assert float(stages["tok_queue"]) > 0
    assert wire.metric('spd_stage_seconds_count{stage="tok_queue"}') == 1
    assert wire.metric("spd_queue_chars") == 0


class Slow(FakeSession):
    """A session whose time is its padded tokens."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The formula's logits, half a millisecond a token."""
        time.sleep(batch.ids_BS.size * 0.0005)
        return super().run(batch)


def test_a_short_text_does_not_wait_for_long_requests() -> None:
    """Beside four requests of many rows a short one is among the next batches, not the last."""
    session = Slow()
    engine = Engine(session, lambda rows: pad(rows, pad_id=0), outputs=2,
                    known_good=tokens(2, 3), max_padded_tokens=2_000, max_rows=64,
                    max_batch_s=0.025, stall_timeout_s=60,
                    metrics=Metrics().of_model("fake"))  # fmt: skip
    try:
        engine.submit([tokens(1, 1)])[0].result(PATIENCE_S)
        long = tokens(*range(1, 65))
        bulk = [future for _ in range(4) for future in engine.submit([long] * 16)]
        bulk[0].result(PATIENCE_S)
        before = sum(future.done() for future in bulk)
        engine.submit([tokens(5, 6)])[0].result(PATIENCE_S)

        assert sum(future.done() for future in bulk) - before <= 16
        assert not all(future.done() for future in bulk)
        for future in bulk:
            future.result(PATIENCE_S)
    finally:
        engine.close(PATIENCE_S)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 2_000))
def test_no_number_of_short_requests_holds_a_long_one_back(short: list[int], long: int) -> None:
    """After shares of its own size have run, every newcomer's turn is behind the long request."""
    clock = FairClock()
    turn = clock.turn_of(long)
    ran = 0
    while ran < 2 * long:
        for size in short:
            clock.ran(size, 2)
            ran += size

    assert all(clock.turn_of(size) > turn for size in short)


@given(st.lists(st.integers(1, 1_000), min_size=2, max_size=10))
def test_of_requests_that_come_together_the_shortest_is_first(sizes: list[int]) -> None:
    """The turns of requests that wait at once are in the order of their sizes."""
    clock = FairClock()

    turns = [clock.turn_of(size) for size in sizes]

    assert sorted(sizes) == [size for _, size in sorted(zip(turns, sizes, strict=True))]


DEADLINES = [
    ("the body's field", {**one(), "timeout_ms": 150}, (), "/v1/classify"),
    ("the header", one(), (f"{HEADER}: 150",), "/v1/classify"),
    ("Envoy's header", {"inputs": "a"}, ("x-envoy-expected-rq-timeout-ms: 150",), "/predict"),
    ("Triton's parameter", {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES",
     "data": ["a"]}], "parameters": {"timeout": 150_000}}, (), "/v2/models/fake/infer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "headers", "path"), [case[1:] for case in DEADLINES], ids=[c[0] for c in DEADLINES]
)
def test_a_request_whose_time_is_over_leaves_the_queue(
    wire: Wire, session: FakeSession, value: object, headers: tuple[str, ...], path: str
) -> None:
    """It gets 504 while the model is busy, and is never run."""
    with busy(wire, session, 1):
        (answer,) = wire.say(ask(value, *headers, path=path))

    assert answer.status == 504
    assert "SPD_DEADLINE_EXCEEDED" in answer.body.decode()
    assert wire.say(ask(one("the bus")))[0].status == 200
    assert sum(len(rows) for rows in session.batches) == 2


def test_a_deadline_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    """By the model's pace so far the answer would come too late, so nothing is queued."""
    session = Slow()
    with listening(fake_served(tmp_path, session)) as wire:
        assert wire.say(ask(one("a good film " * 3)))[0].status == 200
        refused: Answer = wire.say(ask({**one("a good film " * 9), "timeout_ms": 3}))[0]

        assert refused.status == 504
        assert len(session.batches) == 1
        assert wire.say(ask({**one(), "timeout_ms": 5_000}))[0].status == 200


@pytest.mark.parametrize("said", ["x", "-1", "1.5", ""])
def test_a_header_that_is_no_time_is_refused_or_missing(wire: Wire, said: str) -> None:
    """A time that is not a whole number of milliseconds is 422; an empty header says nothing."""
    (answer,) = wire.say(ask(one(), f"{HEADER}: {said}"))

    assert answer.status == (422 if said else 200)
