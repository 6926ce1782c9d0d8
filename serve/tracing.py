"""OpenTelemetry: a span for each request, and spans for its stages below it; no text is in them.

The spans are made when the answer was sent, from the times that the request's record has, so that
tracing costs the request no time. The standard variables ``OTEL_*`` say where they go and which
share of them; a request with ``traceparent`` continues that trace.
"""

import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from serve.request_record import RequestRecord
from spd_deploy.domain.errors import BadSetting, Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_FLUSH_WITHIN_S = 3.0
_HTTP = "http/protobuf"


class Tracing:
    """Makes spans of requests."""

    def __init__(self, provider: "TracerProvider") -> None:
        """``provider`` samples and exports."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("spd", version_of(PACKAGE) or "unknown")
        self._propagator = TraceContextTextMapPropagator()

    def observe(self, record: RequestRecord) -> None:
        """Make the spans of a request."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        epoch_ns = time.time_ns() - round(1e9 * time.perf_counter())

        def at(moment_s: float) -> int:
            return epoch_ns + round(1e9 * moment_s)

        carrier = {"traceparent": record.traceparent, "tracestate": record.tracestate}
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._propagator.extract({key: one for key, one in carrier.items() if one}),
            kind=SpanKind.SERVER,
            attributes=attributes_of(record),
            start_time=at(record.since),
        )
        record.trace_id = f"{span.get_span_context().trace_id:032x}"
        if span.is_recording():
            inside = set_span_in_context(span)
            for name, start_s, end_s in stages_of(record):
                stage = self._tracer.start_span(name, context=inside, start_time=at(start_s))
                stage.end(at(end_s))
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(at(record.ended))

    def close(self) -> None:
        """Export what waits, for three seconds at most: the collector may be away.

        The SDK itself would wait for as long as one export may take, which is ten seconds.
        """
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_FLUSH_WITHIN_S)


def stages_of(record: RequestRecord) -> Iterator[tuple[str, float, float]]:
    """The stages that the request came through: name, begin and end."""
    if record.read is not None:
        yield "read", record.since, record.read
    work = record.work
    if work is None:
        return
    yield "parse", record.since if record.read is None else record.read, work.since
    moment = work.since
    if work.tok_queue_s:  # long texts alone wait for a thread
        yield "tokenise_queue", moment, moment + work.tok_queue_s
        moment += work.tok_queue_s
    for name, seconds in (
        ("tokenise", work.tok_s), ("queue", work.queue_s), ("run", work.run_s)
    ):  # fmt: skip
        if seconds is None:
            return
        yield name, moment, moment + seconds
        moment += seconds


def attributes_of(record: RequestRecord) -> dict[str, Any]:
    """The attributes of a request's span, by OpenTelemetry's names where it has them."""
    work = record.work
    found = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "error.type": record.code,
        "spd.request_id": record.request_id,
        "spd.protocol": record.protocol,
        "spd.client": record.client,
        "spd.model": record.model,
        "spd.rows": work and work.rows,
        "spd.tokens": work and work.tokens,
        "spd.windows": work and work.windows,
        "spd.truncated": work and work.truncated,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def tracing_from_environment() -> Tracing:
    """Tracing to an OTLP collector over HTTP, as the variables ``OTEL_*`` say.

    Raises:
        Unavailable: the packages of the extra are not installed.
        BadSetting: the variables ask for an exporter or a protocol that there is not.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as err:
        raise Unavailable(
            "OpenTelemetry is not installed", got=err, fix="pip install 'spd-deploy[otel]'"
        ) from err
    _refuse("OTEL_TRACES_EXPORTER", only="otlp")
    _refuse("OTEL_EXPORTER_OTLP_PROTOCOL", only=_HTTP)
    _refuse("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", only=_HTTP)
    named = "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {} if named or "OTEL_SERVICE_NAME" in os.environ else {"service.name": "spd"}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _refuse(variable: str, *, only: str) -> None:
    """Refuse a variable with another value than the one that there is."""
    value = os.environ.get(variable, only)
    if value != only:
        raise BadSetting(
            f"{variable} asks for something that --tracing does not have",
            got=value,
            fix=f"set it to {only}, or leave it out",
        )
