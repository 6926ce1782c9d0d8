"""Bodies and heads made to cost much: refused before they are parsed, held or read."""

import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.connection_pool import FREE_BYTES
from serve.http_rules import MAX_HEAD_BYTES
from serve.json_structure import structure_of
from serve.settings import ServeSettings
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served
from tests.serve.wire import Wire, listening, request, wait_until

PATHS = ("/v1/classify", "/predict", "/rerank", "/tokenize", "/classify", "/score",
         "/v1/models/fake:predict", "/v2/models/fake/infer", "/v2/repository/index")  # fmt: skip
KEYS = b",".join(b'"k%d":1' % i for i in range(100_000))
TENSOR = b'{"name":"text","shape":[1],"datatype":"BYTES","data":["a"]}'
COSTLY = {
    "keys": b'{"inputs":"a",' + KEYS + b"}",
    "keys of an input": b'{"inputs":[{"text":"a",' + KEYS + b"}]}",
    "keys of parameters": b'{"inputs":[' + TENSOR + b'],"parameters":{' + KEYS + b"}}",
    "lists": b'{"inputs":[' + b"[]," * 500_000 + b"[]]}",
    "lists of lists": b'{"input":[' + b"[[1]]," * 250_000 + b"1]}",
    "objects": b'{"instances":[' + b"{}," * 500_000 + b"{}]}",
    "numbers": b'{"inputs":[' + b"1," * 900_000 + b"1]}",
    "texts": b'{"query":"a","texts":[' + b'"",' * 600_000 + b'""]}',
    "dimensions": b'{"inputs":[{"name":"text","datatype":"BYTES","data":["a"],"shape":['
    + b"1," * 200_000 + b"1]}]}",
    "outputs": b'{"inputs":[' + TENSOR + b'],"outputs":[' + b"1," * 200_000 + b"1]}",
}  # fmt: skip


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server that holds four megabytes of bodies."""
    settings = ServeSettings(max_bodies_bytes=4_000_000)
    with listening(fake_served(tmp_path_factory.mktemp("bodies"), FakeSession()), settings) as one:
        yield one


@pytest.mark.parametrize("body", COSTLY.values(), ids=COSTLY)
def test_costly_json_is_refused_by_every_protocol(wire: Wire, body: bytes) -> None:
    """A megabyte of keys, lists or numbers gets a small 4xx everywhere, and costs no second."""
    for path in PATHS:
        (answer,) = wire.say(request("POST", path, body=body))

        assert answer.status in (400, 404, 422) or path == "/v2/repository/index"
        assert len(answer.body) < 600
    assert wire.state.in_flight == 0


VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\[{,:]} é')),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('a"\\[')), inner, max_size=4)
    ),
    max_leaves=20,
)


def counted(value: object) -> tuple[int, int, int]:
    """Nodes, values and depth of a JSON value, by walking it."""
    if not isinstance(value, dict | list):
        return 0, 0, 0
    inner = [counted(one) for one in (value.values() if isinstance(value, dict) else value)]
    keys = len(value) if isinstance(value, dict) else 0
    return (
        1 + keys + sum(one[0] for one in inner),
        1 + max(0, len(value) - 1) + sum(one[1] for one in inner),
        1 + max((one[2] for one in inner), default=0),
    )


@given(VALUES, st.booleans())
def test_the_structure_of_json_is_counted_without_a_parser(value: object, ascii_only: bool) -> None:
    """Keys, lists, commas and depth are those of the value, whatever its texts hold."""
    found = structure_of(json.dumps(value, ensure_ascii=ascii_only).encode())

    assert (found.nodes, found.values, found.depth) == counted(value)


def test_a_text_full_of_brackets_is_a_text_like_others(wire: Wire) -> None:
    """Only what stands outside of strings counts."""
    body = json.dumps({"inputs": [{"text": '[{"a": 1}, \\ ' * 40_000}]}).encode()

    assert wire.say(request("POST", "/v1/classify", body=body))[0].status == 200


def first_answers(connections: Sequence[socket.socket], *, count: int) -> list[bytes]:
    """The first ``count`` answers on any of the connections."""
    waiting, deadline = list(connections), time.monotonic() + PATIENCE_S
    answers: list[bytes] = []
    while len(answers) < count and time.monotonic() < deadline:
        ready, _, _ = select.select(waiting, [], [], 1.0)
        for connection in ready:
            answers.append(connection.recv(65_536))
            waiting.remove(connection)
    assert len(answers) >= count
    return answers


def test_unfinished_bodies_are_held_up_to_a_limit(wire: Wire) -> None:
    """Of many long bodies a few are held, the others get 429, and a short request is served."""
    size = 1_900_000
    head = request("POST", "/predict", f"Content-Length: {size + 9}", "Content-Type: x").replace(
        b"Content-Type: x", b"Content-Type: application/json"
    )
    with ExitStack() as stack:
        held = [stack.enter_context(wire.connect()) for _ in range(6)]
        for connection in held:
            connection.sendall(head + b" " * size)
        # Which of them are refused depends on whose bytes the server reads first.
        refused = first_answers(held, count=3)

        # A refusal counts until it is sent, and a read of asyncio has up to 256 KiB.
        assert wire.pool.held_bytes <= 4_000_000 + FREE_BYTES + 3 * 262_144
        assert all(answer.startswith(b"HTTP/1.1 429") for answer in refused)
        assert all(b"retry-after: 1" in answer for answer in refused)
        body = b'{"inputs": "a good film"}'
        assert wire.say(request("POST", "/predict", body=body))[0].status == 200
    wait_until(lambda: wire.pool.held_bytes == 0)  # the server has seen that the others are gone
    assert wire.say(request("POST", "/predict", body=b" " * size + body))[0].status == 200


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["without an end", "whole"])
def test_trailers_are_limited_like_headers(wire: Wire, end: bytes) -> None:
    """What follows a body in chunks gets 431 beyond the limit of headers."""
    (answer,) = wire.say(chunked(b"A: " + b"b" * 1000 + b"\r\n", times=400) + end)

    assert answer.status == 431


def test_trailers_do_not_become_headers(wire: Wire) -> None:
    """A field after the body cannot change what the headers said."""
    plain, more = (
        wire.say(chunked(trailer, times=1) + b"\r\n")[0]
        for trailer in (b"", b"Content-Type: text/plain\r\nX-Request-Id: other\r\n")
    )

    assert (plain.status, more.status) == (200, 200)
    assert more.headers["x-request-id"] != "other"


@pytest.mark.parametrize(
    "data",
    [b"GET /" + b"a" * 200_000, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 30_000],
    ids=["a target", "headers"],
)
def test_a_head_beyond_the_limit_is_431(wire: Wire, data: bytes) -> None:
    """It is refused as soon as it is too long, without its end."""
    assert len(data) > MAX_HEAD_BYTES
    assert wire.say(data)[0].status == 431


def chunked(trailer: bytes, *, times: int) -> bytes:
    """A request in chunks with trailers, but for its last line."""
    head = request("POST", "/predict", "Transfer-Encoding: chunked", "Content-Type: a/b").replace(
        b"a/b", b"application/json"
    )
    body = b'{"inputs": "a film"}'
    return head + b"%x\r\n%s\r\n0\r\n" % (len(body), body) + trailer * times
