"""More connections than there is room for: the idle make room, and probes are always answered."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serve.connection_pool import SPARE, ConnectionPool, reserve_of
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Artefact
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served
from tests.serve.wire import Wire, listening, request

CAP = 5
ASK = request("POST", "/predict", body=b'{"inputs": "a good film"}')
DRIPPING = request("POST", "/predict", body=b'{"inputs"')[: -len(b'"inputs"')]


@pytest.fixture
def wire(tmp_path: Path, session: FakeSession) -> Iterator[Wire]:
    """A server of few connections."""
    with listening(fake_served(tmp_path, session), ServeSettings(max_connections=CAP)) as found:
        yield found


@pytest.mark.parametrize("first", [b"", b"GET /livez HT", DRIPPING], ids=["idle", "head", "body"])
def test_a_client_that_waits_makes_room(wire: Wire, first: bytes) -> None:
    """However many connections have no whole request, a new one is served; the oldest is closed."""
    with ExitStack() as stack:
        held = [stack.enter_context(wire.connect()) for _ in range(4 * CAP)]
        for connection in held:
            send_if_open(connection, first)

        assert [wire.say(ASK)[0].status for _ in range(3)] == [200] * 3
        assert len(wire.pool) <= CAP
        assert is_closed(held[0])


def test_where_every_connection_works_only_probes_are_served(
    wire: Wire, session: FakeSession
) -> None:
    """A request beyond the cap gets 429 with Retry-After at once, and a probe its answer."""
    session.gate.close()
    with ExitStack() as stack:
        working = [stack.enter_context(wire.connect()) for _ in range(CAP)]
        for connection in working:
            connection.sendall(ASK)
        session.gate.wait_until_reached()
        wait_until_in_flight(wire, CAP)

        (refused,) = wire.say(ASK)
        probes = [wire.say(request("GET", path))[0].status for path in ("/livez", "/readyz")]

        session.gate.open()
        answers = [connection.recv(65_536) for connection in working]
    assert (refused.status, refused.json()["code"]) == (429, "SPD_QUEUE_FULL")
    assert int(refused.headers["retry-after"]) >= 1
    assert probes == [200, 200]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


@pytest.mark.parametrize("files", [16, 64, 1024, 4096, 1_000_000])
def test_connections_leave_descriptors_for_others(files: int) -> None:
    """However few files the process may open, the cap and its spare places stay below."""
    pool = ConnectionPool(ServeSettings(), max_open_files=files)

    assert 1 <= pool.limit <= ServeSettings().max_connections
    assert pool.limit + reserve_of(files) <= max(files, 16)
    assert reserve_of(files) >= min(SPARE, files // 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' /proc")
def test_a_process_with_few_descriptors_neither_spins_nor_floods_its_log(
    single_artefact: Artefact, tmp_path: Path
) -> None:
    """With more clients than descriptors probes are answered, and the log has a few lines."""
    log = tmp_path / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"ulimit -n 128 && exec {sys.executable} -m spd_deploy serve"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            ["bash", "-c", f"{command} {single_artefact.folder} --port {port} --threads 1"],
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        ) as server,
        ExitStack() as stack,
    ):
        try:
            wait_until_ready(port)
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            before = cpu_s(server.pid)
            time.sleep(1.0)
            spent = cpu_s(server.pid) - before

            assert probe(port).startswith(b"HTTP/1.1 200")
            assert spent < 0.5
            assert log.stat().st_size < 5_000
        finally:
            server.terminate()


def send_if_open(connection: socket.socket, data: bytes) -> None:
    """Send, unless the server has closed the connection."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has hung up; it resets a connection that is written to afterwards."""
    try:
        return connection.recv(65_536) == b""
    except ConnectionResetError:
        return True


def wait_until_in_flight(wire: Wire, count: int) -> None:
    """Return once so many requests are in flight."""
    give_up_at = time.perf_counter() + PATIENCE_S
    while wire.state.in_flight < count:
        assert time.perf_counter() < give_up_at
        time.sleep(0.01)


def probe(port: int, path: str = "/readyz") -> bytes:
    """The beginning of the answer to a probe."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request("GET", path).replace(b"Host: x", b"Host: localhost"))
        return connection.recv(65_536)


def wait_until_ready(port: int) -> None:
    """Return once ``/readyz`` answers 200."""
    give_up_at = time.perf_counter() + 120
    while time.perf_counter() < give_up_at:
        try:
            if probe(port).startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
