"""The server's metrics, which Prometheus reads at ``/metrics``.

Each app has a registry of its own, so two apps in one process do not share counters. Labels have
few values: the routes and ``other``, statuses, stages. No label holds a text, client or request id.

What happens before an answer is sent is noted, and counted once it has been sent, so that no client
waits for the counting.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"

# 50 us to 10 s: three steps a decade are fine enough for a p99 and cheap to keep.
_SECONDS = (
    *(5e-05, 1e-04, 2e-04, 5e-04, 1e-03, 2e-03, 5e-03),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = tuple(2**i for i in range(4, 18))
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

# Metrics of a protocol, given the server's own by their names.
Source = Callable[[Mapping[str, Metric]], Iterable[Metric]]


class BatchFault(StrEnum):
    """The ways in which a batch fails: the label ``kind`` of ``spd_engine_errors_total``."""

    EXCEPTION = "exception"
    NOT_FINITE = "not_finite"
    STALLED = "stalled"


class Metrics:
    """The metrics of one app; any thread may use them."""

    def __init__(self) -> None:
        self._noted: deque[tuple[Callable[[float], None], float]] = deque()
        self._registry = CollectorRegistry()
        self._sources: list[Source] = []
        registry = self._registry
        self._requests = Counter(
            "spd_requests_total",
            "Requests answered, by route and status.",
            ["route", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "spd_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "spd_stage_seconds",
            "Seconds of a stage: tok_queue, tok and queue of a request, run of a batch.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "spd_batch_rows", "Texts or pairs in a batch.", buckets=_ROWS, registry=registry
        )
        self._batch_tokens = Histogram(
            "spd_batch_tokens",
            "Tokens of a batch, padding included.",
            buckets=_TOKENS,
            registry=registry,
        )
        self._padding_efficiency = Histogram(
            "spd_padding_efficiency",
            "Share of a batch's tokens that are not padding, from 0 to 1.",
            buckets=_SHARES,
            registry=registry,
        )
        self._truncated = Counter(
            "spd_truncated_total", "Texts cut to the model's longest input.", registry=registry
        )
        self._engine_errors = Counter(
            "spd_engine_errors_total",
            "Batches that raised, gave NaN or infinite scores, or exceeded the stall timeout.",
            ["kind"],
            registry=registry,
        )
        self._running_seconds = Gauge(
            "spd_batch_running_seconds",
            "Seconds that the running batch has taken so far; 0 where none runs.",
            registry=registry,
        )
        self._queue_items = Gauge(
            "spd_queue_items", "Texts or pairs that are queued or running.", registry=registry
        )
        self._queue_tokens = Gauge(
            "spd_queue_tokens",
            "Tokens that are queued or running, without padding.",
            registry=registry,
        )
        self._queue_chars = Gauge(
            "spd_queue_chars",
            "Characters that wait to be tokenised or are being tokenised.",
            registry=registry,
        )
        self._build_info: Gauge | None = None
        self._tok_queue, self._tok, self._queue, self._run = map(
            self._stage_seconds.labels, ("tok_queue", "tok", "queue", "run")
        )
        for fault in BatchFault:
            self._engine_errors.labels(fault)

    def request_answered(self, route: str, code: int, seconds: float) -> None:
        """Count an answered request; 499 stands for a client that disconnected before."""
        self._requests.labels(route, str(code)).inc()
        self._request_seconds.labels(route).observe(seconds)
        self._count_noted()

    def texts_tokenised(self, seconds: float, *, queue_s: float, truncated: int) -> None:
        """Count a request's tokenising, its wait before, and how many of its texts were cut."""
        self._noted.append((self._tok.observe, seconds))
        self._noted.append((self._tok_queue.observe, queue_s))
        if truncated:
            self._noted.append((self._truncated.inc, truncated))

    def request_waited(self, seconds: float) -> None:
        """Count the seconds that a request's slowest row waited in the queue."""
        self._noted.append((self._queue.observe, seconds))

    def batch_ran(self, rows: int, *, tokens: int, real_share: float, run_s: float) -> None:
        """Count a batch: rows, padded tokens, the share of real ones, seconds in the model."""
        self._noted.extend(
            (
                (self._run.observe, run_s),
                (self._batch_rows.observe, rows),
                (self._batch_tokens.observe, tokens),
                (self._padding_efficiency.observe, real_share),
            )
        )

    def engine_failed(self, fault: BatchFault) -> None:
        """Count a failed batch."""
        self._engine_errors.labels(fault).inc()

    def watch_model(self, running_s: Callable[[], float]) -> None:
        """Read the running batch's seconds from ``running_s`` at each scrape."""
        self._running_seconds.set_function(running_s)

    def watch_queue(
        self, items: Callable[[], int], tokens: Callable[[], int], chars: Callable[[], int]
    ) -> None:
        """Read the queue's size at each scrape."""
        self._queue_items.set_function(items)
        self._queue_tokens.set_function(tokens)
        self._queue_chars.set_function(chars)

    def describe_build(self, facts: Mapping[str, str]) -> None:
        """Publish facts of the model and the server as labels of a gauge that is always 1."""
        if self._build_info is None:
            self._build_info = Gauge(
                "spd_build_info",
                "Always 1; its labels describe the model and the server.",
                list(facts),
                registry=self._registry,
            )
        self._build_info.clear()
        self._build_info.labels(*facts.values()).set(1)

    def show_also(self, source: Source) -> None:
        """Show the metrics of a protocol too; ``source`` is called at each scrape."""
        self._sources.append(source)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self._count_noted()
        own = {family.name: family for family in self._registry.collect()}
        more = [family for source in self._sources for family in source(own)]
        return generate_latest(_Families([*own.values(), *more]))

    def _count_noted(self) -> None:
        """Count what is noted. A deque, since the engine's thread may note at the same time."""
        while self._noted:
            count, value = self._noted.popleft()
            count(value)


class _Families(Collector):
    """Metrics that are collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The metrics, as they were collected."""
        return self._families
