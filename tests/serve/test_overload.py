"""A full house, clients that leave, and faults of one request beside the others."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.types import ASGIApp

from serve.admission import Load
from serve.settings import ServeSettings
from serve.state import Phase, ServerState
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from tests.serve.clients import Exchange, ready, series_of, until
from tests.serve.fakes import FakeSession, fake_served

PREDICT = "/predict"
SMALL = ServeSettings(max_queue_items=2)


def ask(app: ASGIApp, *texts: str) -> Exchange:
    return Exchange(app, PREDICT, {"inputs": [[text] for text in texts]})


async def get(app: ASGIApp, path: str) -> int | None:
    exchange = Exchange(app, path, None, method="GET")
    await asyncio.wait_for(exchange.task, 10)
    return exchange.status


async def held(state: ServerState, items: int) -> None:
    """Return once so many texts are in the house and tokenised."""
    assert state.opened
    admission = state.opened.admission
    await until(lambda: admission.held == Load(items, 3 * items))


async def make_busy(app: ASGIApp, session: FakeSession) -> Exchange:
    """A request that is in the model until the gate opens."""
    session.gate.close()
    exchange = ask(app, "a")
    await asyncio.to_thread(session.gate.wait_until_reached)
    return exchange


def test_a_full_queue_gets_429(tmp_path: Path, session: FakeSession) -> None:
    """Who finds no place is told at once when to come again; probes and the others are served."""

    async def story() -> None:
        async with ready(fake_served(tmp_path, session), SMALL) as (app, state):
            running = await make_busy(app, session)
            waiting = ask(app, "b")
            await held(state, 2)
            refused = ask(app, "c")
            told = await refused.answer()
            assert (refused.status, told["code"]) == (429, "SPD_QUEUE_FULL")
            assert told["error_type"] == "Overloaded"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert [await get(app, path) for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
            session.gate.open()
            await running.answer()
            await waiting.answer()
            assert (running.status, waiting.status) == (200, 200)
            later = ask(app, "c")
            await later.answer()
            assert later.status == 200
            await held(state, 0)

    asyncio.run(story())
    assert len(session.batches) == 3


def test_a_request_is_let_in_as_a_whole_or_not(tmp_path: Path, session: FakeSession) -> None:
    """Where there is room for one of two texts, neither is run."""

    async def story() -> None:
        async with ready(fake_served(tmp_path, session), SMALL) as (app, state):
            running = await make_busy(app, session)
            refused = ask(app, "b", "c")
            await refused.answer()
            assert refused.status == 429
            await held(state, 1)
            session.gate.open()
            await running.answer()

    asyncio.run(story())
    assert [len(rows) for rows in session.batches] == [1]


def test_tokens_fill_the_queue_too(tmp_path: Path, session: FakeSession) -> None:
    """A request with more tokens than there is room for is refused after it is tokenised."""
    settings = ServeSettings(max_queue_tokens=10)

    async def story() -> None:
        async with ready(fake_served(tmp_path, session), settings) as (app, state):
            running = await make_busy(app, session)
            refused = ask(app, "b " * 8)
            await refused.answer()
            assert refused.status == 429
            await held(state, 1)
            session.gate.open()
            await running.answer()

    asyncio.run(story())


def test_a_client_that_leaves_frees_its_place(tmp_path: Path, session: FakeSession) -> None:
    """Its text is not run, its place is another's, and it is counted as gone."""
    served = fake_served(tmp_path, session)

    async def story() -> str:
        async with ready(served, SMALL) as (app, state):
            running = await make_busy(app, session)
            leaving = ask(app, "b")
            await held(state, 2)
            leaving.leave()
            await asyncio.wait_for(leaving.task, 10)
            await held(state, 1)
            other = ask(app, "c")
            await held(state, 2)
            session.gate.open()
            await running.answer()
            await other.answer()
            assert other.status == 200
            page = Exchange(app, "/metrics", None, method="GET")
            await page.task
            return page.text

    page = asyncio.run(story())
    assert session.batches == [[served.tokenizer.encode(text).ids] for text in ("a", "c")]
    assert series_of(page, 'spd_requests_total{code="499",route="/predict"}') == [1.0]
    assert series_of(page, "spd_queue_items") == [0.0]


def test_a_client_that_leaves_while_its_text_runs_harms_nobody(
    tmp_path: Path, session: FakeSession
) -> None:
    """Its answer is dropped, its place is free, and the next client is served."""

    async def story() -> None:
        async with ready(fake_served(tmp_path, session), SMALL) as (app, state):
            leaving = await make_busy(app, session)
            leaving.leave()
            await asyncio.wait_for(leaving.task, 10)
            await held(state, 0)
            session.gate.open()
            other = ask(app, "b")
            await other.answer()
            assert other.status == 200

    asyncio.run(story())


def test_a_client_that_leaves_while_it_sends_harms_nobody(
    tmp_path: Path, session: FakeSession
) -> None:
    """Half a body is dropped, and never run even where it would be a good one."""

    async def story() -> int | None:
        async with ready(fake_served(tmp_path, session)) as (app, state):
            leaving = Exchange(app, PREDICT, {"inputs": "a"}, whole=False)
            leaving.leave()
            await asyncio.wait_for(leaving.task, 10)
            assert state.in_flight == 0
            return leaving.status

    assert asyncio.run(story()) == 499
    assert session.batches == []


def test_one_of_several_texts_that_fails_takes_the_request_along(
    tmp_path: Path, session: FakeSession
) -> None:
    """A request fails as a whole, gives back all its places, and the next one is served."""
    served = fake_served(tmp_path, session)
    session.fail = refusing(served.tokenizer.encode("bad"))

    async def story() -> None:
        async with ready(served, SMALL) as (app, state):
            failing = ask(app, "a", "bad", "c")
            told = await failing.answer()
            assert (failing.status, told["code"]) == (424, "SPD_ENGINE_FAILED")
            await held(state, 0)
            other = ask(app, "a")
            await other.answer()
            assert other.status == 200

    asyncio.run(story())


def test_a_fault_hurts_only_its_own_request(tmp_path: Path, session: FakeSession) -> None:
    """Of requests in one batch, the one at fault gets 424 and no word of our inside."""
    served = fake_served(tmp_path, session)
    session.fail = refusing(served.tokenizer.encode("bad"))

    async def story() -> None:
        async with ready(served) as (app, state):
            running = await make_busy(app, session)
            others = [ask(app, text) for text in ("b", "bad", "c")]
            await held(state, 4)
            session.gate.open()
            told = [await exchange.answer() for exchange in (running, *others)]
            assert [one.status for one in (running, *others)] == [200, 200, 424, 200]
            assert "injected" not in told[2]["error"]
            assert "RuntimeError" not in told[2]["error"]
            assert state.phase is Phase.READY

    asyncio.run(story())


class NotANumber(FakeSession):
    """A session that gives NaN for one row."""

    def __init__(self, bad: Tokens) -> None:
        super().__init__()
        self._bad = bad

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The formula's logits, but for the bad row."""
        logits_BC = super().run(batch)
        bad = [row == self._bad.ids for row in self.batches[-1]]
        logits_BC[bad] = np.nan
        return logits_BC


def test_a_score_that_is_no_number_is_424(tmp_path: Path) -> None:
    """NaN is never sent, neither as such nor as null, and its neighbours get their scores."""
    tokenizer = fake_served(tmp_path, FakeSession()).tokenizer
    session = NotANumber(tokenizer.encode("bad"))

    async def story() -> None:
        async with ready(fake_served(tmp_path, session)) as (app, state):
            running = await make_busy(app, session)
            others = [ask(app, text) for text in ("bad", "c")]
            await held(state, 3)
            session.gate.open()
            told = [await exchange.answer() for exchange in (running, *others)]
            assert [one.status for one in (running, *others)] == [200, 424, 200]
            assert told[1]["code"] == "SPD_ENGINE_FAILED"

    asyncio.run(story())


class BrokenTokenizer(Tokenizer):
    """A tokenizer that cannot read one text."""

    def encode(self, text: str, pair: str | None = None, **how: object) -> Tokens:
        """Fail for that text."""
        if text == "bad":
            raise RuntimeError("a secret of ours")
        return super().encode(text, pair)


def test_a_bug_of_ours_is_a_500_that_tells_nothing(
    tmp_path: Path, session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an id, the log has the cause under it, and the next client is served."""
    served = fake_served(tmp_path, session)
    broken = BrokenTokenizer(tmp_path / "tokenizer.json", max_tokens=32)

    async def story() -> Any:
        async with ready(replace(served, tokenizer=broken)) as (app, state):
            failing = ask(app, "bad")
            told = await failing.answer()
            assert (failing.status, told["code"]) == (500, "SPD_INTERNAL")
            await held(state, 0)
            other = ask(app, "a")
            await other.answer()
            assert other.status == 200
            return told

    told = asyncio.run(story())
    assert "secret" not in told["error"]
    assert told["request_id"] in caplog.text
    assert "a secret of ours" in caplog.text


def test_requests_in_flight_are_answered_while_draining(
    tmp_path: Path, session: FakeSession
) -> None:
    """Draining refuses new work and unreadies the server, and finishes what was let in."""

    async def story() -> None:
        async with ready(fake_served(tmp_path, session)) as (app, state):
            native = {"inputs": [{"text": "b"}]}
            running = [await make_busy(app, session), Exchange(app, "/v1/classify", native)]
            await held(state, 2)
            state.drain()
            late = ask(app, "c")
            told = await late.answer()
            assert (late.status, told["code"]) == (503, "SPD_NOT_READY")
            assert late.headers["retry-after"] == "1"
            assert late.headers["connection"] == "close"
            assert [await get(app, path) for path in ("/livez", "/readyz")] == [200, 503]
            assert state.in_flight == 2
            session.gate.open()
            for exchange in running:
                await exchange.answer()
            assert [exchange.status for exchange in running] == [200, 200]
            assert state.in_flight == 0

    asyncio.run(story())
    assert session.closed


def refusing(bad: Tokens) -> Any:
    """What makes a session fail on every batch with this row."""

    def fail(rows: list[tuple[int, ...]]) -> None:
        if bad.ids in rows:
            raise RuntimeError("injected")

    return fail
