"""No memory, no descriptors, a full disk: requests are refused, it is logged once, and passes."""

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.engine import Engine
from serve.health import Health
from serve.log_rarely import Rarely
from serve.metrics import Metrics
from serve.protocols import operations
from spd_deploy.domain.text import pad
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served, tokens
from tests.serve.wire import listening, request

ASK = request("POST", "/predict", body=b'{"inputs": "a good film"}')
ERRORS = [
    MemoryError(),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: out of memory"),
]


def raising(error: BaseException) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_model_without_memory_refuses_and_recovers(tmp_path: Path, error: Exception) -> None:
    """The request gets a 5xx that invites to come again, and the next one its answer."""
    session = FakeSession()
    with listening(fake_served(tmp_path, session)) as wire:
        session.fail = raising(error)
        (refused,) = wire.say(ASK)
        session.fail = lambda rows: None

        assert (refused.status, refused.json()["code"]) == (503, "SPD_NOT_READY")
        assert refused.headers["retry-after"] == "1"
        assert "no memory left" in refused.json()["error"]
        assert wire.say(ASK)[0].status == 200


@pytest.mark.parametrize(
    "error",
    [MemoryError(), *(OSError(one, "x") for one in (errno.EMFILE, errno.ENFILE, errno.ENOSPC))],
    ids=repr,
)
def test_a_handler_without_resources_is_503_and_logged_once(
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hundred refusals make at most one line, without a traceback; then all is well."""
    with listening(fake_served(tmp_path, FakeSession())) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(operations, "demo_page", lambda: raising(error)(None))
            statuses = {wire.say(request("GET", "/"))[0].status for _ in range(100)}

        assert statuses == {503}
        assert len(caplog.records) <= 1
        assert "Traceback" not in caplog.text
        assert wire.say(request("GET", "/"))[0].status == 200


def test_what_happens_often_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The next line after a minute tells how many were left out, of each kind by itself."""
    now = [0.0]
    rarely = Rarely(logging.getLogger("test"), clock=lambda: now[0])
    for second in range(90):
        now[0] = float(second)
        rarely.error("disk", "no disk")
    rarely.error("memory", "no memory")

    assert [record.getMessage() for record in caplog.records] == [
        "no disk",
        "no disk (59 times more before)",
        "no memory",
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_on_a_full_disk_ends_no_server(tmp_path: Path) -> None:
    """A server that cannot write a line says and logs nothing, and goes on."""
    code = (
        "import logging; from spd_deploy.cli.serve import _say; logging.basicConfig(); "
        "_say('ready'); logging.error('x'); _say('draining'); print('alive', flush=True)"
    )
    with open("/dev/full", "wb", buffering=0) as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stderr=full, stdout=subprocess.PIPE, timeout=60
        )

    assert done.stdout == b"alive\n"


def test_a_hang_is_told_with_its_seconds_and_a_slow_batch_is_none() -> None:
    """Ten times the model's own pace is a hang, and told so; less is merely slow."""
    now = [0.0]
    health = Health(stall_timeout_s=1.0, clock=lambda: now[0])
    health.began(expected_s=2.0)
    now[0] = 19.0
    slow = health.hang
    now[0] = 25.0

    assert slow == ""
    assert health.hang == "a batch hangs in the model for 25 s; 2 s were expected"


def test_a_hang_before_the_model_is_one_too() -> None:
    """A batch that never leaves the padding counts as well as one in the session."""
    session = FakeSession()

    def stuck(rows: object) -> object:
        session.gate.pass_through()
        return pad(rows, pad_id=0)  # type: ignore[arg-type]

    engine = Engine(session, stuck, outputs=2, known_good=tokens(2, 3),  # type: ignore[arg-type]
                    max_padded_tokens=64, max_rows=8, stall_timeout_s=0.05,
                    metrics=Metrics().of_model("fake"))  # fmt: skip
    session.gate.close()
    (future,) = engine.submit([tokens(1, 2)])
    session.gate.wait_until_reached()
    while not engine.health.hang:
        pass
    engine.give_up_stalled()
    session.gate.open()

    assert future.exception(PATIENCE_S)
    assert engine.close(PATIENCE_S)
