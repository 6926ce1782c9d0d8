"""OpenTelemetry: the spans of a request, by the SDK's own exporter into memory."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient
from tritonclient import grpc as triton

from serve.tracing import Tracing, tracing_from_environment
from spd_deploy.domain.errors import BadSetting
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served
from tests.serve.wire import listening

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTINUED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
STAGES = ["read", "parse", "tokenise", "queue", "run"]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps the spans."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    """Tracing into the exporter."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


@pytest.fixture
def traced(tmp_path: Path, tracing: Tracing) -> Iterator[TestClient]:
    """A client of a server with tracing."""
    with client_of(fake_served(tmp_path, FakeSession()), observers=(tracing,)) as client:
        yield client


def spans_of(exporter: InMemorySpanExporter, root: str) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The span of a request by its name, and those of its stages in their order."""
    spans = exporter.get_finished_spans()
    (whole,) = (one for one in spans if one.name == root)
    inside = [one for one in spans if one.parent and one.parent.span_id == whole.context.span_id]
    return whole, sorted(inside, key=lambda one: (one.start_time or 0, STAGES.index(one.name)))


def test_a_request_is_a_span_with_its_stages(
    traced: TestClient, exporter: InMemorySpanExporter
) -> None:
    """Stages follow one another inside the request's span, which says what was asked."""
    traced.post("/predict", json={"inputs": "a good film"}, headers={"X-Request-Id": "mine"})

    whole, stages = spans_of(exporter, "POST /predict")
    assert [one.name for one in stages] == STAGES
    moment = whole.start_time or 0
    for one in stages:
        assert moment <= (one.start_time or 0) <= (one.end_time or 0)
        moment = one.end_time or 0
    assert moment <= (whole.end_time or 0)
    assert whole.kind is SpanKind.SERVER and whole.parent is None
    found = dict(whole.attributes or {})
    assert found["http.response.status_code"] == 200 and found["spd.request_id"] == "mine"
    assert (found["spd.model"], found["spd.rows"], found["spd.tokens"]) == ("fake", 1, 5)
    assert "a good film" not in whole.to_json()


def test_a_trace_is_continued(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    """``traceparent`` names the trace and the parent; what is no such header begins a trace."""
    traced.post("/predict", json={"inputs": "a"}, headers=CONTINUED)
    whole, stages = spans_of(exporter, "POST /predict")
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == PARENT
    assert {f"{one.context.trace_id:032x}" for one in (whole, *stages)} == {TRACE}
    assert whole.context.trace_state.get("vendor") == "1"

    exporter.clear()
    traced.post("/predict", json={"inputs": "a"}, headers={"traceparent": f"00-{'0' * 32}-x-01"})
    whole, _ = spans_of(exporter, "POST /predict")
    assert whole.parent is None and whole.context.trace_id != 0


def test_a_refused_request_has_the_stages_that_it_reached(
    traced: TestClient, exporter: InMemorySpanExporter
) -> None:
    """A body of nonsense is read and not run; a 4xx is no error of the server, a 5xx is."""
    traced.post("/predict", content=b"{", headers={"Content-Type": "application/json"})

    whole, stages = spans_of(exporter, "POST /predict")
    assert [one.name for one in stages] == ["read"]
    assert dict(whole.attributes or {})["error.type"] == "SPD_NOT_JSON"
    assert whole.status.status_code is StatusCode.UNSET


def test_a_failed_engine_is_an_error(
    tmp_path: Path, tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    """The span has the status ERROR and no stage after tokenising."""

    def fail(_: list[tuple[int, ...]]) -> None:
        raise RuntimeError("broken")

    with client_of(fake_served(tmp_path, FakeSession(fail)), observers=(tracing,)) as client:
        assert client.post("/v1/classify", json={"inputs": [{"text": "a"}]}).status_code == 500

    whole, stages = spans_of(exporter, "POST /v1/classify")
    assert whole.status.status_code is StatusCode.ERROR
    assert [one.name for one in stages] == STAGES[:3]


def test_grpc_continues_a_trace(
    tmp_path: Path, tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    """The metadata of a call stands for the headers of a request."""
    served = fake_served(tmp_path, FakeSession())
    with (
        listening(served, grpc_address=("127.0.0.1", 0), observers=(tracing,)) as wire,
        triton.InferenceServerClient(wire.state.grpc_address) as client,
    ):
        client.get_model_metadata("fake", headers=CONTINUED)

    (whole,) = (one for one in exporter.get_finished_spans() if "ModelMetadata" in one.name)
    assert f"{whole.context.trace_id:032x}" == TRACE


def test_a_path_is_not_in_a_span(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    """A path that does not exist is called other, so that no client makes names of spans."""
    traced.get("/SECRET")

    assert "SECRET" not in "".join(one.to_json() for one in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_it_does_not_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A variable that asks for another exporter or protocol is named, not passed over."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(BadSetting, match=f"{variable} asks for something"):
        tracing_from_environment()


def test_the_variables_say_where_and_as_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Service name and sampler are the SDK's; without a name the service is spd."""
    named: Any = tracing_from_environment()
    assert named._provider.resource.attributes["service.name"] == "spd"

    monkeypatch.setenv("OTEL_SERVICE_NAME", "reviews")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    named = tracing_from_environment()
    assert named._provider.resource.attributes["service.name"] == "reviews"
    assert "AlwaysOff" in named._provider.sampler.get_description()


def test_nothing_of_it_is_loaded_when_it_is_off() -> None:
    """The server and its command line work without the packages of the extra."""
    code = (
        "import sys; off = {'opentelemetry.sdk': None, 'opentelemetry.exporter': None};"
        "sys.modules.update(off);"  # FastAPI itself loads the API, which does nothing alone
        "import serve.app, serve.observers, spd_deploy.cli.main;"
        "from serve.metrics import Metrics;"
        "print(serve.observers.observers_of(Metrics(), log_share=0, tracing=False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
