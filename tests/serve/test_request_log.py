"""The request log: one line of JSON a request, with no text in it, that holds nobody up."""

import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tritonclient import grpc as triton

from serve.access import Access
from serve.api_keys import KeyFile
from serve.request_log import RequestLog, line_of
from serve.request_record import RequestRecord, begin_work, recording
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import listening

KEY = "a-key-of-the-web-frontend"
SECRET = "SECRETTEXT"


class Lines:
    """A log into a pipe, and what came out of it."""

    def __init__(self, **options: Any) -> None:
        self.out, self.into = os.pipe()
        self.log = RequestLog(self.into, **options)

    def read(self) -> list[dict[str, Any]]:
        """Close the log, and parse all of its lines."""
        self.log.close()
        os.close(self.into)
        with os.fdopen(self.out, encoding="ascii") as pipe:
            return [json.loads(line) for line in pipe]


@pytest.fixture
def lines() -> Lines:
    """A log of all requests."""
    return Lines()


def test_a_line_tells_what_was_asked_and_how_long_it_took(tmp_path: Path, lines: Lines) -> None:
    """Protocol, model, client, rows, tokens and stages stand in it, and add up to the whole."""
    keys = tmp_path / "keys"
    keys.write_text(f"web:{KEY}\n", encoding="utf-8")
    with client_of(
        fake_served(tmp_path, FakeSession()),
        access=Access(keys=KeyFile(keys)),
        observers=(lines.log,),
    ) as client:
        headers = {"x-api-key": KEY, "X-Request-Id": "mine"}
        body = {"inputs": [{"text": "a good film"}, {"text": "so long " * 40}]}
        timing = client.post("/v1/classify", json=body, headers=headers).headers["Server-Timing"]

    (line,) = lines.read()
    stages = [float(ms) for ms in re.findall(r"dur=([\d.]+)", timing)]
    assert line["id"] == "mine"
    assert (line["protocol"], line["method"], line["route"]) == ("native", "POST", "/v1/classify")
    assert (line["status"], line["model"], line["client"]) == (200, "fake", "web")
    assert (line["rows"], line["tokens"], line["truncated"]) == (2, 5 + 32, 1)
    assert [line[f"{stage}_ms"] for stage in ("tok_queue", "tok", "queue", "run")] == stages
    assert line["total_ms"] >= line["read_ms"] + sum(stages)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds() < 60
    assert "code" not in line


@pytest.mark.parametrize(
    ("path", "body", "protocol", "status", "code"),
    [
        ("/predict", {"inputs": SECRET}, "tei", 200, None),
        ("/predict", {"inputs": 5}, "tei", 422, "SPD_MALFORMED"),
        ("/v1/classify", {"inputs": []}, "native", 400, "SPD_EMPTY_TEXT"),
        ("/classify", {"input": SECRET}, "vllm", 200, None),
        ("/v1/models/fake:predict", {"instances": [SECRET]}, "kserve", 200, None),
        (f"/v1/models/{SECRET}:predict", {"instances": [SECRET]}, "kserve", 404,
         "SPD_UNKNOWN_MODEL"),
        (f"/v2/models/{SECRET}/infer", {"inputs": []}, "oip", 404, "SPD_UNKNOWN_MODEL"),
        (f"/{SECRET}?q={SECRET}", {"inputs": SECRET}, None, 404, "SPD_NOT_FOUND"),
    ],
)  # fmt: skip
def test_no_text_of_the_client_is_in_a_line(
    tmp_path: Path, lines: Lines, path: str, body: Any, protocol: str | None, status: int,
    code: str | None,
) -> None:  # fmt: skip
    """Neither bodies nor paths nor headers are logged, of answered and of refused requests."""
    headers = {"User-Agent": SECRET, "X-Request-Id": f"{SECRET} \x1b[2J", "traceparent": SECRET}
    with client_of(fake_served(tmp_path, FakeSession()), observers=(lines.log,)) as client:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        assert client.post(path, json=body, headers=raw).status_code == status

    (line,) = lines.read()
    assert SECRET not in json.dumps(line)
    assert (line.get("protocol"), line["status"], line.get("code")) == (protocol, status, code)
    assert re.fullmatch(r"[0-9a-f]{16}", line["id"])


def test_grpc_is_logged_too(tmp_path: Path, lines: Lines) -> None:
    """A call has a line with its method, and the kind of its error."""
    served = fake_served(tmp_path, FakeSession())
    with (
        listening(served, grpc_address=("127.0.0.1", 0), observers=(lines.log,)) as wire,
        triton.InferenceServerClient(wire.state.grpc_address) as client,
    ):
        client.get_model_metadata("fake", headers={"x-request-id": "mine"})
        with pytest.raises(Exception, match="no such model"):
            client.get_model_metadata("other")

    first, second = (one for one in lines.read() if one["protocol"] == "oip-grpc")
    assert (first["id"], first["status"]) == ("mine", 200)
    assert first["route"].endswith("/ModelMetadata")
    assert (second["status"], second["code"]) == (404, "SPD_UNKNOWN_MODEL")


def test_probes_and_scrapes_have_no_line(tmp_path: Path, lines: Lines) -> None:
    """What comes every few seconds from the platform is left out; what people ask is not."""
    with client_of(fake_served(tmp_path, FakeSession()), observers=(lines.log,)) as client:
        for path in ("/livez", "/readyz", "/metrics", "/v2/health/live", "/info"):
            assert client.get(path).status_code == 200

    assert [line["route"] for line in lines.read()] == ["/info"]


def test_a_share_is_drawn_for_each_request() -> None:
    """Of draws from 0 to 0.9 a share of 0.3 keeps three in ten."""
    draws = iter([i / 10 for i in range(10)])
    lines = Lines(share=0.3, draw=lambda: next(draws))

    for i in range(10):
        lines.log.observe(RequestRecord(str(i), "GET"))

    assert [line["id"] for line in lines.read()] == ["0", "1", "2"]


def test_work_beside_the_request_is_not_the_requests() -> None:
    """The first model that works is the request's; a shadow's work leaves the record alone."""
    record = RequestRecord("id", "POST")
    with recording(record):
        begin_work("sparse", 1).ran(0.1, 0.2)
        begin_work("dense", 1).ran(5.0, 5.0)
    begin_work("alone", 1).ran(1.0, 1.0)

    line = line_of(record, datetime.now(UTC))
    assert (line["model"], line["queue_ms"], line["run_ms"]) == ("sparse", 100.0, 200.0)


def test_a_reader_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait up to a bound, then they are dropped and counted; those that waited are whole."""
    monkeypatch.setattr("serve.request_log._MOST_WAITING", 50)
    dropped: list[int] = []
    lines = Lines(dropped=lambda: dropped.append(1))
    record = RequestRecord("x" * 64, "GET", route="/" + "y" * 10_000)  # a pipe holds six

    for _ in range(500):
        lines.log.observe(record)

    assert len(dropped) > 300
    with ThreadPoolExecutor(1) as reader:
        found = reader.submit(Path(f"/dev/fd/{lines.out}").read_bytes)
        lines.log.close()
        os.close(lines.into)
        whole = found.result()
    os.close(lines.out)
    assert whole.count(b"\n") == 500 - len(dropped)
    assert all(json.loads(line)["id"] == "x" * 64 for line in whole.splitlines())


def test_a_log_that_cannot_be_written_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A full device is one line of the server's own log, however many requests there are."""
    dropped: list[int] = []
    with open("/dev/full", "wb", buffering=0) as full, caplog.at_level(logging.ERROR):
        log = RequestLog(full.fileno(), dropped=lambda: dropped.append(1))
        for _ in range(20):
            log.observe(RequestRecord("id", "GET"))
        log.close()

    assert len(dropped) == 20
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server without a request log."""
    with client_of(fake_served(tmp_path, FakeSession())) as client:
        yield client


def test_it_is_off_by_default(quiet: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed for a request."""
    quiet.post("/predict", json={"inputs": "a film"})

    assert capfd.readouterr().out == ""
