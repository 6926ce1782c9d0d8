"""Loads on a server of known behaviour: what is counted, and from when a latency is counted."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.benchmark.http.check_answers import check, outcome_of
from spd_deploy.benchmark.http.generator import run_load
from spd_deploy.benchmark.http.load import load_generator
from spd_deploy.benchmark.http.load_spec import (
    GOLDEN_EVERY,
    LoadOutcome,
    LoadSpec,
    SampleRequest,
    poisson_arrivals,
    with_golden,
)
from spd_deploy.benchmark.http.visit import refuse_silence
from spd_deploy.benchmark.http.wire import Address, AnswerReader, address_of
from spd_deploy.domain.errors import BadSetting, EngineFailed, Unavailable

LOGITS = {"no": 1.5, "yes": -0.5}
REQUEST = SampleRequest(inputs=(("a film",),), expected=(LOGITS,))


def body_of(logits: dict[str, float], rows: int = 1) -> bytes:
    """The answer of a server that gives these logits."""
    labels = [{"label": name, "score": score} for name, score in logits.items()]
    return json.dumps({"results": [{"labels": labels}] * rows}).encode()


class Behaviour:
    """What a server does with one request after another."""

    def __init__(self, *statuses: int, delay_s: float = 0.0, body: bytes | None = None) -> None:
        self.statuses, self.delay_s = list(statuses), delay_s
        self.body = body_of(LOGITS) if body is None else body
        self.lock = threading.Lock()


@contextlib.contextmanager
def server_of(behaviour: Behaviour) -> Iterator[str]:
    """The URL of a server that answers one request at a time."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with behaviour.lock:
                time.sleep(behaviour.delay_s)
                status = behaviour.statuses.pop(0) if behaviour.statuses else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(behaviour.body)))
            self.send_header("Server-Timing", "tok;dur=0.250, run;dur=1.500")
            self.end_headers()
            self.wfile.write(behaviour.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def closed(url: str, n: int, connections: int = 1) -> LoadSpec:
    """So many requests, as fast as they are answered."""
    return LoadSpec(
        url=url,
        requests=(REQUEST,),
        tolerance=1e-3,
        connections=connections,
        at_least=n,
        at_most=n,
    )


def loaded(spec: LoadSpec) -> LoadOutcome:
    """What becomes of a load in this process."""
    return outcome_of(spec, run_load(spec))


def test_a_closed_loop_counts_what_it_sent() -> None:
    """Twenty requests over three connections are all answered rightly, with the server's stages."""
    with server_of(Behaviour()) as url:
        found = loaded(closed(url, 20, connections=3))

    assert (len(found.latency_s), found.rows, found.wrong, found.failed) == (20, 20, 0, 0)
    assert (found.stages_s["tok"], found.stages_s["run"]) == (0.00025, 0.0015)
    assert found.difference == 0.0


def test_latency_is_counted_from_when_a_request_was_due() -> None:
    """Ten requests that are due at once, each taking 50 ms, wait for up to half a second."""
    due_s = (0.0,) * 10
    with server_of(Behaviour(delay_s=0.05)) as url:
        found = loaded(LoadSpec(url=url, requests=(REQUEST,), tolerance=1e-3, due_s=due_s))

    waits = sorted(found.latency_s)
    assert len(waits) == 10
    assert all(wait >= 0.05 * (i + 1) * 0.99 for i, wait in enumerate(waits))


def test_refused_and_failed_requests_are_told_apart() -> None:
    """429 and 503 are refusals, 500 is a failure with its reason, and neither has a latency."""
    with server_of(Behaviour(429, 503, 500)) as url:
        found = loaded(closed(url, 8))

    assert (found.refused, found.failed, len(found.latency_s)) == (2, 1, 5)
    assert found.reason == "HTTP 500"


def test_a_server_that_never_answers_ends_a_closed_loop() -> None:
    """Each request fails when its time is over, and the next one is sent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = loaded(replace(closed(url, 3), timeout_s=0.1))

    assert (found.failed, found.reason) == (3, "no answer within 0.1 s")


def test_a_load_without_an_answer_is_no_measurement() -> None:
    """A server that refuses everything ends the run, with what it said."""
    with server_of(Behaviour(*[503] * 3)) as url:
        refused = loaded(closed(url, 3))

    with pytest.raises(EngineFailed, match="the server of sparse stopped answering; got 3 refused"):
        refuse_silence(refused, "sparse")


def test_wrong_answers_under_load_are_counted() -> None:
    """A server that gives other logits has every text counted as wrong, and how far it is."""
    with server_of(Behaviour(body=body_of({"no": 1.2, "yes": -0.5}))) as url:
        found = loaded(closed(url, 4))

    assert (found.rows, found.wrong) == (4, 4)
    assert found.difference == pytest.approx(0.3 / 1.5)


def test_the_generator_is_a_process_that_runs_loads() -> None:
    """It runs one load after another, and says where nobody listens."""
    with load_generator() as generator, server_of(Behaviour()) as url:
        first, second = (generator.run(closed(url, n)) for n in (3, 5))
        with pytest.raises(Unavailable, match=r"nobody answers at http://127\.0\.0\.1:9"):
            generator.run(closed("http://127.0.0.1:9", 1))

    assert (len(first.latency_s), len(second.latency_s)) == (3, 5)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (body_of(LOGITS, rows=2), 0),
        (body_of({"no": 1.5, "yes": -0.49}, rows=2), 2),
        (body_of({"no": 1.5}, rows=2), 2),
        (body_of({"no": 1.5, "yes": float("nan")}, rows=2), 2),
        (body_of(LOGITS), 2),
        (b"[]", 2),
        (b"<html>", 2),
    ],
    ids=["right", "off", "a label missing", "nan", "a row missing", "no object", "no JSON"],
)
def test_an_answer_is_held_against_its_logits(body: bytes, wrong: int) -> None:
    """Rows are right within the tolerance, and whatever is no answer is wrong."""
    assert check(body, (LOGITS, LOGITS), 1e-3).wrong == wrong


@given(st.floats(1.0, 500.0), st.integers(0, 9))
def test_arrivals_come_at_their_rate(rate: float, seed: int) -> None:
    """Two thousand take their time within eight standard errors, the same one each time."""
    due_s = poisson_arrivals(rate, seconds=0.0, at_least=2000, seed=seed)

    assert list(due_s) == sorted(due_s)
    assert due_s[-1] * rate == pytest.approx(2000, abs=8 * np.sqrt(2000))
    assert due_s == poisson_arrivals(rate, seconds=0.0, at_least=2000, seed=seed)


@given(st.integers(1, 40), st.integers(0, 12))
def test_every_golden_text_has_its_turn(texts: int, golden: int) -> None:
    """Every text and every golden one is among the requests, and one in eight is golden."""
    plain = [SampleRequest(inputs=((str(i),),), expected=({},)) for i in range(texts)]
    known = [SampleRequest(inputs=((f"g{i}",),), expected=({},), golden=1) for i in range(golden)]

    mixed = with_golden(plain, known)

    assert {one.inputs for one in mixed} == {one.inputs for one in (*plain, *known)}
    assert sum(one.golden for one in mixed) * GOLDEN_EVERY == (len(mixed) if golden else 0)


@given(st.integers(1, 80))
def test_an_answer_may_come_in_parts(size: int) -> None:
    """However the bytes of two answers are cut, chunked or not, both are read whole."""
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer-Timing: run;dur=2.5\r\n\r\nhello"
    chunked = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    data, reader, found = plain + chunked, AnswerReader(), []
    ends = {len(plain)}  # a client has one request in flight, so no part holds two answers
    starts = sorted({*range(0, len(data), size), *ends})
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        if (answer := reader.feed(data[start:end])) is not None:
            found.append(answer)

    assert [(one.status, one.body) for one in found] == [(200, b"hello"), (429, b"abc")]
    assert found[0].stages_s == {"run": 0.0025}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", Address(host="127.0.0.1", port=8000)),
        ("http://example.org/models/a/", Address(host="example.org", port=80, prefix="/models/a")),
        ("https://[::1]:9", Address(host="::1", port=9, tls=True)),
        ("http://ä.org/ä/", Address(host="xn--4ca.org", port=80, prefix="/%C3%A4")),
    ],
)
def test_a_url_is_an_address(url: str, address: Address) -> None:
    """Scheme, host, port and prefix are read."""
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a?x",
        "",
        f"http://{'a' * 64}.org",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """A URL without a scheme, host or whole port is refused with an example."""
    with pytest.raises(BadSetting, match="no URL of a server"):
        address_of(url)
