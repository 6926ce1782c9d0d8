"""What the server counts, for Prometheus to read at ``/metrics``.

One registry an app, so two apps in one process do not share numbers. Labels take few values: the
known routes and ``other``, statuses, stages; never a text, a client or a request id.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"

# 50 us to 10 s: three steps a decade are fine enough for a p99 and cheap to keep.
_SECONDS = (
    *(5e-05, 1e-04, 2e-04, 5e-04, 1e-03, 2e-03, 5e-03),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Fault(StrEnum):
    """How a batch can fail."""

    EXCEPTION = "exception"
    NOT_FINITE = "not_finite"
    STALLED = "stalled"


class Metrics:
    """The counters of one app; safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "spd_requests_total", "Requests answered.", ["route", "code"], registry=registry
        )
        self._request_seconds = Histogram(
            "spd_request_seconds",
            "From the first byte of the headers to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "spd_stage_seconds",
            "Time in one stage: tok and queue a request, run a batch.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "spd_batch_rows", "Rows run at once.", buckets=_ROWS, registry=registry
        )
        self._padding_efficiency = Histogram(
            "spd_padding_efficiency",
            "Share of a batch's tokens that is not padding.",
            buckets=_SHARES,
            registry=registry,
        )
        self._truncated = Counter(
            "spd_truncated_total", "Texts that lost tokens.", registry=registry
        )
        self._engine_errors = Counter(
            "spd_engine_errors_total",
            "Batches that failed, gave scores that are no numbers, or did not come back in time.",
            ["kind"],
            registry=registry,
        )
        self._stages = {one: self._stage_seconds.labels(one) for one in ("tok", "queue", "run")}
        for fault in Fault:
            self._engine_errors.labels(fault)

    def request_answered(self, route: str, code: int, seconds: float) -> None:
        """A request got its answer; 499 stands for a client that left before it."""
        self._requests.labels(route, str(code)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def texts_tokenised(self, seconds: float, *, truncated: int) -> None:
        """A request's texts were tokenised."""
        self._stages["tok"].observe(seconds)
        self._truncated.inc(truncated)

    def request_waited(self, seconds: float) -> None:
        """A request's texts spent this long in the queue."""
        self._stages["queue"].observe(seconds)

    def batch_ran(self, rows: int, *, real_share: float, run_s: float) -> None:
        """A batch was run."""
        self._stages["run"].observe(run_s)
        self._batch_rows.observe(rows)
        self._padding_efficiency.observe(real_share)

    def engine_failed(self, fault: Fault) -> None:
        """A batch failed."""
        self._engine_errors.labels(fault).inc()

    def watch_model(self, running_s: Callable[[], float]) -> None:
        """Read how long the batch in the model has been running whenever Prometheus asks."""
        Gauge(
            "spd_batch_running_seconds",
            "How long the batch in the model has been running; 0 where there is none.",
            registry=self._registry,
        ).set_function(running_s)

    def watch_queue(self, items: Callable[[], int], tokens: Callable[[], int]) -> None:
        """Read the queue's size whenever Prometheus asks."""
        for name, text, read in (
            ("spd_queue_items", "Texts being answered or waiting.", items),
            ("spd_queue_tokens", "Tokens being answered or waiting.", tokens),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def describe_build(self, facts: Mapping[str, str]) -> None:
        """Say once what is served, as labels of a gauge that is always 1."""
        gauge = Gauge("spd_build_info", "What is served.", list(facts), registry=self._registry)
        gauge.labels(*facts.values()).set(1)

    def page(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)
