"""Clients that send, or read, slower than any good one: cut off in time, and harmful to nobody."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.http_errors import ErrorBody
from serve.settings import ServeSettings
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served
from tests.serve.wire import Answer, Wire, answers_in, listening, request, wait_until

SHORT = ServeSettings(
    header_timeout_s=0.4, body_timeout_s=0.5, keep_alive_timeout_s=0.6, write_timeout_s=0.5
)
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)
CHUNKED = HEAD.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server with short deadlines."""
    with listening(fake_served(tmp_path_factory.mktemp("slow"), FakeSession()), SHORT) as found:
        yield found


def dripped(wire: Wire, first: bytes, drop: bytes) -> list[Answer]:
    """The answers to a client that sends ``first``, and then a drop now and then."""
    received = b""
    with wire.connect() as connection:
        connection.sendall(first)
        connection.settimeout(0.05)
        give_up_at = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < give_up_at:
            try:
                part = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(drop)
                continue
            if not part:
                return list(answers_in(received))
            received += part
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize("head", [b"GET /livez", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: "])
@pytest.mark.parametrize("drop", [b"", b"a"], ids=["silent", "dripping"])
def test_headers_that_do_not_end_are_cut_off(wire: Wire, head: bytes, drop: bytes) -> None:
    """A request whose headers take too long gets 408, whether it drips or is silent."""
    (answer,) = dripped(wire, head, drop)

    assert answer.status == 408
    assert ErrorBody.model_validate_json(answer.body, strict=True).code == "SPD_REQUEST_TIMEOUT"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("head", "drop"), [(HEAD, b""), (HEAD, b" "), (CHUNKED, b"1\r\n \r\n")])
def test_bodies_that_do_not_end_are_cut_off(wire: Wire, head: bytes, drop: bytes) -> None:
    """A body that takes too long gets 408, whether it has a length or comes in chunks."""
    (answer,) = dripped(wire, head, drop)

    assert answer.status == 408
    assert ErrorBody.model_validate_json(answer.body, strict=True).request_id
    assert wire.state.in_flight == 0


def test_a_body_that_goes_on_after_its_answer_is_cut_off(wire: Wire) -> None:
    """A client that is refused by its headers cannot drip its body for ever."""
    refused = HEAD.replace(b"application/json", b"text/plain")

    (answer,) = dripped(wire, refused, b" ")

    assert answer.status == 415


@pytest.mark.parametrize("drop", [b"", b"\r\n"], ids=["silent", "blank lines"])
def test_a_connection_without_a_request_is_closed(wire: Wire, drop: bytes) -> None:
    """Who opens a connection and sends no request is disconnected without an answer."""
    assert dripped(wire, b"", drop) == []


@pytest.mark.parametrize("drop", [b"", b"\r\n"], ids=["silent", "blank lines"])
def test_a_connection_between_requests_is_closed(wire: Wire, drop: bytes) -> None:
    """A connection that is kept alive waits only so long for its next request."""
    (answer,) = dripped(wire, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", drop)

    assert answer.status == 200


def test_a_request_that_runs_long_is_not_cut_off(tmp_path: Path) -> None:
    """The deadlines are those of the client's sending; the model may take longer."""
    session = FakeSession()
    ask = request("POST", "/predict", body=b'{"inputs": "a good film"}')
    with listening(fake_served(tmp_path, session), SHORT) as wire, wire.connect() as connection:
        session.gate.close()
        connection.sendall(ask.replace(b"Connection: close\r\n", b"") + b"\r\n")
        session.gate.wait_until_reached()
        time.sleep(1.0)
        session.gate.open()

        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_unread_answers_hold_no_memory(wire: Wire) -> None:
    """A client that does not read is disconnected once its answers fill the buffers."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wait_until(lambda: len(wire.pool) == 0)
        connection.connect(("127.0.0.1", wire.port))
        connection.settimeout(PATIENCE_S)
        wait_until(lambda: len(wire.pool) == 1)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30
        connection.sendall(asked)

        wait_until(lambda: len(wire.pool) == 0)


def test_a_slow_body_does_not_stretch_the_end(tmp_path: Path) -> None:
    """A request whose body has not arrived is not in flight, so a drain does not wait for it."""
    with listening(fake_served(tmp_path, FakeSession())) as wire, wire.connect() as connection:
        connection.sendall(HEAD + b" ")
        wait_until(lambda: bool(wire.pool.held_bytes == 0 and len(wire.pool) == 1))
        time.sleep(0.1)

        assert wire.state.in_flight == 0


def test_a_refusal_is_read_by_a_client_that_still_sends(wire: Wire) -> None:
    """The connection lingers: a client that sends megabytes gets its 413 and no reset."""
    head = HEAD.replace(b"1000", b"50000000")
    with wire.connect() as connection:
        connection.sendall(head)
        for _ in range(20):
            connection.sendall(b" " * 100_000)
            time.sleep(0.01)
        received = connection.recv(65_536)

    assert received.startswith(b"HTTP/1.1 413")
