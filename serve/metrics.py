"""The server's metrics, which Prometheus reads at ``/metrics``.

Each app has a registry of its own, so two apps in one process do not share counters. Labels have
few values: the routes and ``other``, statuses, stages, the models that are served. No label holds a
text, client or request id.

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

# From 0.5 ms to 10 s each bound is at most 1.7 times the one before, so that a percentile read from
# the buckets is that exact. Tokenising and an idle queue take less than 0.5 ms.
_SECONDS = (
    *(5e-05, 1e-04, 2e-04, 3e-04, 5e-04, 7e-04, 1e-03, 1.5e-03, 2e-03, 3e-03, 5e-03, 7e-03),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0),
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = tuple(2**i for i in range(4, 18))
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_FILLS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)

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
            "Requests answered, by route, status and model; without a model where none was asked.",
            ["route", "code", "model"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "spd_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route", "model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "spd_requests_in_flight",
            "Requests that have arrived whole and are not answered yet.",
            registry=registry,
        )
        self._dropped_lines = Counter(
            "spd_request_log_dropped_total",
            "Lines of the request log that could not be written.",
            registry=registry,
        )
        self._families = _ModelFamilies(registry)
        self._build_info: Gauge | None = None
        self._builds: dict[str, tuple[str, ...]] = {}

    def of_model(self, name: str) -> "ModelMetrics":
        """The metrics of one model; each model that is opened under the name counts in them."""
        return ModelMetrics(self._families, name, self._noted)

    def request_answered(self, route: str, code: int, seconds: float, *, model: str = "") -> None:
        """Count an answered request; 499 stands for a client that disconnected before."""
        self._requests.labels(route, str(code), model).inc()
        self._request_seconds.labels(route, model).observe(seconds)
        self._count_noted()

    def watch_requests(self, in_flight: Callable[[], int]) -> None:
        """Read the number of requests that are not answered yet at each scrape."""
        self._in_flight.set_function(in_flight)

    def log_line_dropped(self) -> None:
        """Count a line that the request log could not write."""
        self._dropped_lines.inc()

    def describe_build(self, model: str, facts: Mapping[str, str]) -> None:
        """Publish facts of a model and the server as labels of a gauge that is always 1.

        They take the place of those that were published of this model before.
        """
        if self._build_info is None:
            self._build_info = Gauge(
                "spd_build_info",
                "Always 1; its labels describe the model and the server.",
                list(facts),
                registry=self._registry,
            )
        if (before := self._builds.get(model)) is not None:
            self._build_info.remove(*before)
        self._builds[model] = tuple(facts.values())
        self._build_info.labels(*self._builds[model]).set(1)

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


class _ModelFamilies:
    """The metrics that each model has for itself, by the label ``model``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, told: str, buckets: Iterable[float], *more: str) -> Histogram:
            labels = [*more, "model"]
            return Histogram(name, told, labels, buckets=tuple(buckets), registry=registry)

        def gauge(name: str, told: str) -> Gauge:
            return Gauge(name, told, ["model"], registry=registry)

        self.stage_seconds = histogram(
            "spd_stage_seconds",
            "Seconds of a stage: tok_queue, tok and queue of a request, run of a batch.",
            _SECONDS,
            "stage",
        )
        self.batch_rows = histogram("spd_batch_rows", "Texts or pairs in a batch.", _ROWS)
        self.batch_tokens = histogram(
            "spd_batch_tokens", "Tokens of a batch, padding included.", _TOKENS
        )
        self.batch_fill = histogram(
            "spd_batch_fill",
            "Share of the largest batch, in tokens or rows, that a batch was; from 0 to 1.",
            _FILLS,
        )
        self.padding_efficiency = histogram(
            "spd_padding_efficiency",
            "Share of a batch's tokens that are not padding, from 0 to 1.",
            _SHARES,
        )
        self.truncated = Counter(
            "spd_truncated_total",
            "Texts cut to the model's longest input.",
            ["model"],
            registry=registry,
        )
        self.windows = Counter(
            "spd_windows_total",
            "Windows that were run of texts longer than the model's longest input.",
            ["model"],
            registry=registry,
        )
        self.engine_errors = Counter(
            "spd_engine_errors_total",
            "Batches that raised, gave NaN or infinite scores, or exceeded the stall timeout.",
            ["kind", "model"],
            registry=registry,
        )
        self.running_seconds = gauge(
            "spd_batch_running_seconds",
            "Seconds that the running batch has taken so far; 0 where none runs.",
        )
        self.queue_age = gauge(
            "spd_queue_age_seconds",
            "Seconds that the oldest text of the queue has waited; 0 where none waits.",
        )
        self.queue_items = gauge("spd_queue_items", "Texts or pairs that are queued or running.")
        self.queue_tokens = gauge(
            "spd_queue_tokens", "Tokens that are queued or running, without padding."
        )
        self.queue_chars = gauge(
            "spd_queue_chars", "Characters that wait to be tokenised or are being tokenised."
        )


class ModelMetrics:
    """The metrics of one model; any thread may use them."""

    def __init__(
        self,
        families: _ModelFamilies,
        model: str,
        noted: "deque[tuple[Callable[[float], None], float]]",
    ) -> None:
        """Counts before an answer is sent go into ``noted``."""
        self._noted = noted
        stages = families.stage_seconds
        self._tok_queue, self._tok, self._queue, self._run = (
            stages.labels(stage, model) for stage in ("tok_queue", "tok", "queue", "run")
        )
        self._rows, self._tokens = (
            one.labels(model) for one in (families.batch_rows, families.batch_tokens)
        )
        self._fill, self._efficiency = (
            one.labels(model) for one in (families.batch_fill, families.padding_efficiency)
        )
        self._truncated = families.truncated.labels(model)
        self._windows = families.windows.labels(model)
        self._running_seconds = families.running_seconds.labels(model)
        self._queue_age = families.queue_age.labels(model)
        self._queue_items = families.queue_items.labels(model)
        self._queue_tokens = families.queue_tokens.labels(model)
        self._queue_chars = families.queue_chars.labels(model)
        self._errors = {fault: families.engine_errors.labels(fault, model) for fault in BatchFault}

    def texts_tokenised(
        self, seconds: float, *, queue_s: float, truncated: int, windows: int = 0
    ) -> None:
        """Count a request's tokenising, its wait before, and how many of its texts were cut.

        ``windows`` are those of its texts that are read in several.
        """
        self._noted.append((self._tok.observe, seconds))
        self._noted.append((self._tok_queue.observe, queue_s))
        if truncated:
            self._noted.append((self._truncated.inc, truncated))
        if windows:
            self._noted.append((self._windows.inc, windows))

    def request_waited(self, seconds: float) -> None:
        """Count the seconds that a request's slowest row waited in the queue."""
        self._noted.append((self._queue.observe, seconds))

    def batch_ran(
        self, rows: int, *, tokens: int, real_share: float, fill: float, run_s: float
    ) -> None:
        """Count a batch.

        Args:
            rows: its rows.
            tokens: its tokens with padding.
            real_share: the share of them that are no padding.
            fill: its share of the largest batch.
            run_s: its seconds in the model.
        """
        self._noted.extend(
            (
                (self._run.observe, run_s),
                (self._rows.observe, rows),
                (self._tokens.observe, tokens),
                (self._fill.observe, fill),
                (self._efficiency.observe, real_share),
            )
        )

    def engine_failed(self, fault: BatchFault) -> None:
        """Count a failed batch."""
        self._errors[fault].inc()

    def watch_model(
        self, *, running_s: Callable[[], float], oldest_wait_s: Callable[[], float]
    ) -> None:
        """Read the seconds of the running batch and of the oldest waiting row at each scrape."""
        self._running_seconds.set_function(running_s)
        self._queue_age.set_function(oldest_wait_s)

    def watch_queue(
        self, items: Callable[[], int], tokens: Callable[[], int], chars: Callable[[], int]
    ) -> None:
        """Read the queue's size at each scrape."""
        self._queue_items.set_function(items)
        self._queue_tokens.set_function(tokens)
        self._queue_chars.set_function(chars)


class _Families(Collector):
    """Metrics that are collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The metrics, as they were collected."""
        return self._families
