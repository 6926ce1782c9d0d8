"""The server on the wire: answers at once, other protocols declined, and no broken HTTP let in."""

import json
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator

import pytest

from serve.http_errors import ErrorBody
from serve.http_rules import MAX_HEAD_BYTES
from serve.settings import ServeSettings
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import Wire, listening, request

BODY = b'{"inputs": "a good film"}'
CLOSE = "Connection: close"
H2C = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
OTHER_400 = 'spd_requests_total{code="400",route="other"}'


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server of the fake session."""
    with listening(fake_served(tmp_path_factory.mktemp("wire"), FakeSession())) as found:
        yield found


def plain(*lines: str, body: bytes = b"") -> bytes:
    """A request of just these lines."""
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(*headers: str, body: bytes = BODY) -> bytes:
    """A request for an answer."""
    return request("POST", "/predict", *headers, body=body)


def test_a_connection_waits_for_no_acknowledgement(wire: Wire) -> None:
    """A dozen requests over one connection take a few milliseconds each, not a delayed ACK's 40."""
    waits = []
    with wire.connect() as connection:
        for _ in range(12):
            start = time.perf_counter()
            connection.sendall(post().replace(b"Connection: close\r\n", b""))
            received = b""
            while not received.endswith(b"]"):
                received += connection.recv(65_536)
            waits.append(time.perf_counter() - start)

    assert statistics.median(waits) < 0.03


def test_a_connection_sends_at_once(wire: Wire) -> None:
    """Nagle's algorithm is off on every socket that a client is answered on."""
    with wire.connect() as connection:
        connection.sendall(post().replace(b"Connection: close\r\n", b""))
        assert connection.recv(1)
        accepted = wire.sockets()

        assert accepted
        assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in accepted)


def test_a_response_leaves_in_one_write(wire: Wire) -> None:
    """The client's first read has the head and the body, so it is woken once."""
    with wire.connect() as connection:
        for _ in range(12):
            connection.sendall(post().replace(b"Connection: close\r\n", b""))
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")

            assert f"content-length: {len(body)}\r\n".encode() in head + b"\r\n"


def test_a_head_without_a_body_is_sent(wire: Wire) -> None:
    """A HEAD is answered, and so are requests behind it and before it on one connection."""
    get, head = (
        request(method, "/livez").replace(b"Connection: close\r\n", b"")
        for method in ("GET", "HEAD")
    )
    with wire.connect() as connection:
        for asked, has_body in ((head, False), (get, True), (head, False)):
            connection.sendall(asked)
            received = connection.recv(65_536)

            assert received.startswith(b"HTTP/1.1 200 OK")
            assert received.endswith(b"}") is has_body
    assert wire.say(request("HEAD", "/livez"))[0].status == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade, HTTP2-Settings", *H2C),
        ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        ("Connection: upgrade", "Upgrade: TLS/1.2, foo"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_of_another_protocol_is_declined(
    wire: Wire, headers: tuple[str, ...], chunked: bool
) -> None:
    """The request is answered in HTTP/1.1 as if nothing were offered, and its body is read."""
    framing = ("Transfer-Encoding: chunked",) if chunked else (f"Content-Length: {len(BODY)}",)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    head = ("POST /predict HTTP/1.1", "Host: x", "Content-Type: application/json")
    offering = plain(*head, *framing, *headers, body=body)

    together = wire.say(offering + offering + post())
    apart = wire.say(offering[:40], offering[40:-5], offering[-5:], post())

    plainly = wire.say(post())[0].body
    assert [(answer.status, answer.body) for answer in together] == [(200, plainly)] * 3
    assert [(answer.status, answer.body) for answer in apart] == [(200, plainly)] * 2


def test_many_offers_in_one_packet_are_all_declined(wire: Wire) -> None:
    """Requests that offer another protocol are requests like others, within the same cap."""
    offering = plain("GET /livez HTTP/1.1", "Host: x", "Connection: upgrade", "Upgrade: h2c")
    cap = ServeSettings().max_pipelined

    answers = wire.say(offering * cap + request("GET", "/livez"))
    too_many = wire.say(offering * 2000)

    assert [answer.status for answer in answers] == [200] * (cap + 1)
    assert [answer.status for answer in too_many] == [200] * (cap + 1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_would_rather_speak_http2_is_answered(wire: Wire) -> None:
    """``curl --http2`` offers h2c with its body, and gets its answer."""
    done = subprocess.run(
        ["curl", "-sS", "--http2", f"http://127.0.0.1:{wire.port}/predict",
         "-H", "Content-Type: application/json", "-d", BODY.decode()],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert json.loads(done.stdout) == json.loads(wire.say(post())[0].body)


REFUSED = [
    ("no Host", plain("GET /livez HTTP/1.1", CLOSE), 400),
    ("two Hosts", request("GET", "/livez", "Host: y"), 400),
    ("the same Host twice", request("GET", "/livez", "Host: x"), 400),
    ("a Host that is none", plain("GET /livez HTTP/1.1", "Host: a b"), 400),
    ("a Host with a path", plain("GET /livez HTTP/1.1", "Host: a/b"), 400),
    ("a Host with a user", plain("GET /livez HTTP/1.1", "Host: a@b"), 400),
    ("another expectation", post("Expect: 200-ok"), 417),
    ("two expectations", post("Expect: 100-continue, 200-ok"), 417),
    ("an expectation after another", post("Expect: 100-continue", "Expect: x"), 417),
    ("compressed and chunked", plain("POST /predict HTTP/1.1", "Host: x",
     "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    ("compressed and chunked in two lines", plain("POST /predict HTTP/1.1", "Host: x",
     "Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 501),
    ("chunked twice", plain("POST /predict HTTP/1.1", "Host: x",
     "Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    ("compressed", plain("POST /predict HTTP/1.1", "Host: x", "Transfer-Encoding: gzip"), 501),
    ("identity", plain("POST /predict HTTP/1.1", "Host: x", "Transfer-Encoding: identity",
     "Content-Length: 2", body=b"{}"), 400),
    ("chunked in HTTP/1.0", plain("POST /predict HTTP/1.0", "Transfer-Encoding: chunked",
     body=b"0\r\n\r\n"), 400),
    ("chunked and a length", plain("POST /predict HTTP/1.1", "Host: x",
     "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"), 400),
    ("two lengths", post("Content-Length: 5"), 400),
    ("a negative length", plain("POST /predict HTTP/1.1", "Host: x", "Content-Length: -1"), 400),
    ("a length that is none", plain("POST /predict HTTP/1.1", "Host: x", "Content-Length: x"), 400),
    ("an endless length", plain("POST /predict HTTP/1.1", "Host: x", "Content-Length: " + "9" * 40),
     400),
    ("a broken chunk", plain("POST /predict HTTP/1.1", "Host: x", "Transfer-Encoding: chunked",
     body=b"zz\r\n"), 400),
    ("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("a later version", plain("GET /livez HTTP/2.0", "Host: x"), 505),
    ("no version", b"GET /livez\r\n\r\n", 505),
    ("no HTTP", b"hello\r\n\r\n", 400),
    ("NUL", b"\0" * 100, 400),
    ("TLS", bytes.fromhex("16030102000100") + b"\1\xfc\3\3" + bytes(300), 400),
    ("NUL in a header", plain("GET /livez HTTP/1.1", "Host: x", "A: b\0c"), 400),
    ("a folded header", plain("GET /livez HTTP/1.1", "Host: x", "A: b", " c"), 400),
    ("a space before the colon", plain("GET /livez HTTP/1.1", "Host : x"), 400),
    ("a target that is none", plain("GET livez HTTP/1.1", "Host: x"), 400),
    ("a target not in ASCII", "GET /\u00e9 HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
    ("a tunnel", plain("CONNECT x:80 HTTP/1.1", "Host: x:80"), 501),
    ("endless headers", plain("GET /livez HTTP/1.1", "Host: x", "A: " + "b" * MAX_HEAD_BYTES), 431),
    ("headers without an end", b"GET /livez HTTP/1.1\r\nA: " + b"b" * (MAX_HEAD_BYTES + 1), 431),
    ("many headers", plain("GET /livez HTTP/1.1", "Host: x", *["A: b"] * 20_000), 431),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_no_http_is_refused_like_everything_else(
    wire: Wire, data: bytes, status: int
) -> None:
    """The answer is our error body with an id, it is counted, and the connection is closed."""
    counted = f'spd_requests_total{{code="{status}",route="other"}}'
    before = wire.metric(counted)

    (answer,) = wire.say(data)

    assert answer.status == status
    told = ErrorBody.model_validate_json(answer.body, strict=True)
    assert told.request_id == answer.headers["x-request-id"]
    assert answer.headers["connection"] == "close"
    assert wire.metric(counted) == before + 1


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/livez"),
        plain("GET /livez HTTP/1.0"),
        plain("GET /livez HTTP/1.0", "Host: x", "Expect: 200-ok"),
        plain("GET http://x/livez HTTP/1.1", "Host: x", CLOSE),
        plain("GET /livez HTTP/1.1", "Host:", CLOSE),
        plain("GET /livez HTTP/1.1", "hOST: [::1]:8000", CLOSE),
        plain("GET /livez HTTP/1.1", "Host: a_b.example.:8000", CLOSE),
        request("GET", "/livez", "TE: gzip, chunked"),
        post("Expect: 100-Continue").replace(b"/predict", b"/livez").replace(b"POST", b"GET"),
        b"\r\n" + request("GET", "/livez"),
    ],
    ids=lambda data: data.decode().strip().replace("\r\n", " | "),
)
def test_what_is_http_is_answered(wire: Wire, data: bytes) -> None:
    """What the standard allows gets its answer."""
    (answer,) = wire.say(data)

    assert (answer.status, answer.json()) == (200, {"status": "alive"})


def test_what_follows_a_refused_request_is_dropped(wire: Wire) -> None:
    """Earlier requests of the connection are answered, and nothing after the refused one is run."""
    good = post().replace(b"Connection: close\r\n", b"")

    answers = wire.say(good + good + b"garbage\r\n\r\n" + good + good)

    assert [answer.status for answer in answers] == [200, 200, 400]


@pytest.mark.parametrize("wait", [False, True], ids=["at once", "later"])
def test_a_body_that_breaks_is_refused_and_not_run(wire: Wire, wait: bool) -> None:
    """A bad chunk after a good one is no end of the body, even where that would be good JSON."""
    head = plain("POST /predict HTTP/1.1", "Host: x", "Content-Type: application/json",
                 "Transfer-Encoding: chunked")  # fmt: skip
    start, end = head + b"%x\r\n%s\r\n" % (len(BODY), BODY), b"zz\r\n"
    before = wire.metric("spd_batch_rows_count"), wire.metric(OTHER_400)

    (answer,) = wire.say(start, end) if wait else wire.say(start + end)

    assert (answer.status, answer.json()["code"]) == (400, "SPD_BAD_REQUEST")
    assert wire.metric("spd_batch_rows_count") == before[0]
    assert wire.metric(OTHER_400) == before[1] + 1


def test_a_body_that_breaks_after_its_answer_ends_the_connection(wire: Wire) -> None:
    """A request has one answer, whatever its body turns into."""
    head = plain("POST /predict HTTP/1.1", "Host: x", "Content-Type: text/plain",
                 "Transfer-Encoding: chunked")  # fmt: skip

    (answer,) = wire.say(head, b"zz\r\n")

    assert answer.status == 415


def test_a_client_that_hangs_up_halfway_harms_nobody(wire: Wire) -> None:
    """The server answers the next one, and the half request is not in flight any more."""
    for cut in (5, 60, -3):
        with wire.connect() as connection:
            connection.sendall(post()[:cut])
    with wire.connect() as connection:
        connection.sendall(b"garbage")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0] + [0] * 4))

    assert wire.say(post())[0].status == 200
    assert wire.state.in_flight == 0
