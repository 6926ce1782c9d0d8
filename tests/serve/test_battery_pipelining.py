"""Clients that send many requests before they read an answer: a cap, and nothing for who left."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve.settings import ServeSettings
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import Wire, answers_in, listening, request, wait_until

CAP = 4
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
ASK = request("POST", "/predict", body=b'{"inputs": "a good film"}').replace(
    b"Connection: close\r\n", b""
)


@pytest.fixture
def wire(tmp_path: Path, session: FakeSession) -> Iterator[Wire]:
    """A server that keeps few requests of a connection."""
    with listening(fake_served(tmp_path, session), ServeSettings(max_pipelined=CAP)) as found:
        yield found


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("one", [LIVEZ, ASK], ids=["probes", "texts"])
@pytest.mark.parametrize("count", [1, CAP + 1, CAP + 2, 5_000])
def test_only_the_first_of_many_requests_are_answered(wire: Wire, one: bytes, count: int) -> None:
    """One that runs and as many as the cap behind it get answers; then the connection is closed."""
    last = LIVEZ.replace(b"Host: x", b"Host: x\r\nConnection: close") if count <= CAP + 1 else b""
    with wire.connect() as connection:
        connection.sendall(one * count + last)  # at once, before the first is answered
        answers = list(answers_in(read_all(connection)))

    assert all(answer.status == 200 for answer in answers)
    assert len(answers) == (count + 1 if count <= CAP else CAP + 1)
    assert answers[-1].headers["connection"] == "close"


@pytest.mark.parametrize("reads", [False, True], ids=["unread answers", "read answers"])
def test_a_flood_of_requests_costs_no_memory(wire: Wire, reads: bool) -> None:
    """Megabytes of requests are dropped as they come, and other clients are answered meanwhile."""
    process = psutil.Process()
    before = process.memory_info().rss
    with wire.connect() as connection:
        reader = threading.Thread(target=drain, args=(connection,), daemon=True)
        if reads:
            reader.start()
        send_until_closed(connection, LIVEZ * 30_000, times=20)
        assert wire.say(request("GET", "/livez"))[0].status == 200

    assert process.memory_info().rss - before < 100_000_000


def test_requests_of_a_client_that_left_are_not_run(wire: Wire, session: FakeSession) -> None:
    """Of requests behind the one that runs, none reaches the model once the client is gone."""
    session.gate.close()
    with wire.connect() as connection:
        connection.sendall(ASK * (CAP + 1))
        session.gate.wait_until_reached()
    wait_until(lambda: len(wire.pool) == 0)
    session.gate.open()

    assert wire.say(request("POST", "/predict", body=b'{"inputs": "the bus"}'))[0].status == 200
    assert len(session.batches) == 2
    assert wire.state.in_flight == 0


def drain(connection: socket.socket) -> None:
    """Read until the connection ends in any way."""
    with contextlib.suppress(OSError):
        read_all(connection)


def send_until_closed(connection: socket.socket, data: bytes, times: int) -> None:
    """Send, as long as the server takes it."""
    with contextlib.suppress(OSError):
        for _ in range(times):
            connection.sendall(data)
