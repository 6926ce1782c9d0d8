"""A model that hangs, always raises or gives NaN: not ready or not alive, logged and counted."""

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.types import ASGIApp

from serve.engine import Engine
from serve.health import FAILURES_BEFORE_PROBE, Health
from serve.settings import ServeSettings
from serve.state import ServerState
from spd_deploy.domain.text import Batch
from tests.serve.clients import Exchange, ready, series_of, until
from tests.serve.fakes import FakeSession, fake_served

BAD = "bad"


class Sick(FakeSession):
    """A session that is sick until it is healed, by raising or by giving NaN for every row."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The formula's logits once it is healed."""
        logits_BC = super().run(batch)
        if self.how == "raises":
            raise RuntimeError("injected")
        return np.full_like(logits_BC, {"NaN": np.nan, "infinity": np.inf}.get(self.how, 0))


def ask(app: ASGIApp, text: str = "a") -> Exchange:
    return Exchange(app, "/predict", {"inputs": text})


def engine_of(state: ServerState) -> Engine:
    """The engine of a server that is ready."""
    assert state.opened
    return state.opened.engine


async def asked(app: ASGIApp, text: str = "a") -> tuple[int | None, str]:
    """Status and error code of a request."""
    exchange = ask(app, text)
    told = await exchange.answer()
    return exchange.status, told.get("code", "") if isinstance(told, dict) else ""


async def probes(app: ASGIApp) -> tuple[int | None, int | None]:
    """The statuses of ``/livez`` and ``/readyz``."""
    found = [Exchange(app, path, None, method="GET") for path in ("/livez", "/readyz")]
    for exchange in found:
        await exchange.answer()
    return found[0].status, found[1].status


async def metric(app: ASGIApp, name: str) -> float:
    page = Exchange(app, "/metrics", None, method="GET")
    await asyncio.wait_for(page.task, 10)
    return sum(series_of(page.text, name))


@pytest.mark.parametrize(
    ("how", "kind"), [("raises", "exception"), ("NaN", "not_finite"), ("infinity", "not_finite")]
)
def test_a_model_that_always_fails_is_not_ready_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, kind: str
) -> None:
    """After some failures traffic is sent elsewhere; the server tries by itself and comes back."""
    monkeypatch.setattr("serve.engine.CHECK_EVERY_S", 0.02)
    session = Sick(how)

    async def story() -> None:
        async with ready(fake_served(tmp_path, session)) as (app, state):
            for _ in range(FAILURES_BEFORE_PROBE):
                assert await probes(app) == (200, 200)
                assert await asked(app) == (424, "SPD_ENGINE_FAILED")
            assert await probes(app) == (200, 503)
            assert await asked(app) == (503, "SPD_NOT_READY")
            failures = await metric(app, f'spd_engine_errors_total{{kind="{kind}"}}')
            assert failures == FAILURES_BEFORE_PROBE
            await asyncio.sleep(0.1)
            assert await probes(app) == (200, 503)
            session.how = "healed"
            health = engine_of(state).health
            await until(lambda: not health.failing)
            assert await probes(app) == (200, 200)
            assert (await asked(app))[0] == 200

    asyncio.run(story())


def test_inputs_that_fail_do_not_unready_a_model_that_answers_others(
    tmp_path: Path, session: FakeSession
) -> None:
    """A client that sends what the model cannot read harms itself, however often."""
    served = fake_served(tmp_path, session)
    bad = served.tokenizer.encode(BAD).ids

    def fail(rows: list[tuple[int, ...]]) -> None:
        if bad in rows:
            raise RuntimeError("injected")

    session.fail = fail

    async def story() -> None:
        async with ready(served) as (app, _):
            for _ in range(3 * FAILURES_BEFORE_PROBE):
                assert await asked(app, BAD) == (424, "SPD_ENGINE_FAILED")
                assert await probes(app) == (200, 200)
            assert (await asked(app))[0] == 200

    asyncio.run(story())


def test_a_model_that_hangs_is_not_alive(
    tmp_path: Path, session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for it is told, who comes is sent away, and if it comes back all is well."""

    async def story() -> None:
        settings = ServeSettings(stall_timeout_s=1.0)
        async with ready(fake_served(tmp_path, session), settings) as (app, state):
            session.gate.close()
            hangs = ask(app)
            await asyncio.to_thread(session.gate.wait_until_reached)
            waits = ask(app)
            assert await probes(app) == (200, 200)
            told = [await hangs.answer(), await waits.answer()]
            assert [hangs.status, waits.status] == [424, 503]
            assert [one["code"] for one in told] == ["SPD_ENGINE_FAILED", "SPD_NOT_READY"]
            assert told[0]["request_id"] in caplog.text
            assert await probes(app) == (503, 503)
            assert await asked(app) == (503, "SPD_NOT_READY")
            assert await metric(app, 'spd_engine_errors_total{kind="stalled"}') == 1
            assert await metric(app, "spd_batch_running_seconds") >= 0.2
            session.gate.open()
            health = engine_of(state).health
            await until(lambda: not health.stalled)
            assert await probes(app) == (200, 200)
            assert (await asked(app))[0] == 200
            assert await metric(app, "spd_batch_running_seconds") == 0

    asyncio.run(story())


@pytest.mark.parametrize("how", ["raises", "NaN"])
def test_every_failure_is_logged_under_its_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Each request that failed in the model has an error in the log that names it."""

    async def story() -> list[str]:
        async with ready(fake_served(tmp_path, Sick(how))) as (app, _):
            return [(await ask(app).answer())["request_id"] for _ in range(2)]

    with caplog.at_level(logging.ERROR):
        ids = asyncio.run(story())

    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert [sum(one in line for line in lines) for one in ids] == [1, 1]


@pytest.mark.parametrize(
    ("expected_s", "after_s", "stalled"),
    [
        (0.0, 59, False),
        (0.0, 61, True),
        (7.0, 69, False),
        (7.0, 71, True),
        (10.0, 99, False),
        (10.0, 101, True),
    ],
)
def test_a_large_batch_may_take_longer(expected_s: float, after_s: float, stalled: bool) -> None:
    """A batch hangs when it takes longer than the limit and than ten times what it should."""
    now = [1000.0]
    health = Health(stall_timeout_s=60, clock=lambda: now[0])

    health.began(expected_s)
    now[0] += after_s

    assert health.stalled is stalled
    health.ended()
    assert not health.stalled
