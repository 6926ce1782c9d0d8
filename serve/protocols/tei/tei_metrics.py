"""The metrics of Text Embeddings Inference by their names, for dashboards made for it.

What the server measures anyway is shown under a second name when it is scraped. Only what depends
on the request's form is counted here.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from spd_deploy.domain.errors import (
    EngineFailed,
    NotReady,
    Overloaded,
    Refusal,
    TooManyInputs,
)

# TEI's name, ours, and our samples that belong to it.
_SAME: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("te_request_tokenization_duration", "spd_stage_seconds", {"stage": "tok"}),
    ("te_request_queue_duration", "spd_stage_seconds", {"stage": "queue"}),
    ("te_request_inference_duration", "spd_stage_seconds", {"stage": "run"}),
    ("te_batch_next_size", "spd_batch_rows", {}),
    ("te_batch_next_tokens", "spd_batch_tokens", {}),
    ("te_queue_size", "spd_queue_items", {}),
)
# The values of the label ``err``; any other refusal is a ``validation``.
_FAILURES: Mapping[type[Refusal], str] = {
    EngineFailed: "inference",
    NotReady: "unhealthy",
    Overloaded: "overloaded",
    TooManyInputs: "batch_size",
}
_DURATIONS = tuple(0.00001 * 1.5**i for i in range(1, 36))  # TEI's own, in seconds
_LENGTHS = tuple(2**i for i in range(4, 14))
_METHODS = ("single", "batch")


class TeiMetrics:
    """Counts TEI's requests, and names the server's own metrics as TEI does."""

    def __init__(self) -> None:
        self._requests: dict[str, Counter[str]] = {
            "te_request_count": Counter(dict.fromkeys(_METHODS, 0)),
            "te_request_success": Counter(dict.fromkeys(_METHODS, 0)),
        }
        self._failures: Counter[str] = Counter(
            dict.fromkeys(("validation", *_FAILURES.values()), 0)
        )
        self._texts: Counter[str] = Counter(te_predict_count=0, te_predict_success=0)
        self._seconds = Histogram(
            "te_request_duration", "Seconds of a request.", registry=None, buckets=_DURATIONS
        )
        self._lengths = Histogram(
            "te_request_input_length", "Tokens of a text.", registry=None, buckets=_LENGTHS
        )

    @contextlib.contextmanager
    def request(self, method: str, texts: int) -> Iterator[None]:
        """Count one request of ``texts`` inputs while the block runs, and how it ends."""
        self._requests["te_request_count"][method] += 1
        self._texts["te_predict_count"] += texts
        try:
            yield
        except Refusal as err:
            self._failures[_FAILURES.get(type(err), "validation")] += 1
            raise
        self._requests["te_request_success"][method] += 1
        self._texts["te_predict_success"] += texts

    def answered(self, seconds: float, lengths: Iterable[int]) -> None:
        """Count an answered request's seconds, and the tokens of each of its texts."""
        self._seconds.observe(seconds)
        for length in lengths:
            self._lengths.observe(length)

    def collect(self, ours: Mapping[str, Metric]) -> Iterator[Metric]:
        """TEI's metrics, given the server's own by their names."""
        for name, counts in self._requests.items():
            yield _counted(name, "Requests of this form.", "method", counts)
        yield _counted("te_request_failure", "Requests that were refused.", "err", self._failures)
        for name, count in self._texts.items():
            yield _metric(name, "Texts or pairs.", [Sample(name, {}, float(count))])
        yield from self._seconds.collect()
        yield from self._lengths.collect()
        for name, our_name, labels in _SAME:
            if our_name in ours:
                yield _renamed(ours[our_name], name, labels)


def _counted(name: str, help_: str, label: str, counts: Mapping[str, int]) -> Metric:
    """A counter as TEI writes it: without the ending ``_total`` that Prometheus asks for."""
    return _metric(name, help_, [Sample(name, {label: k}, float(n)) for k, n in counts.items()])


def _metric(name: str, help_: str, samples: list[Sample], kind: str = "unknown") -> Metric:
    metric = Metric(name, help_, kind)
    metric.samples = samples
    return metric


def _renamed(ours: Metric, name: str, labels: Mapping[str, str]) -> Metric:
    """The samples of a metric that have these labels, without them, under another name."""
    samples = [
        Sample(
            sample.name.replace(ours.name, name, 1),
            {key: value for key, value in sample.labels.items() if key not in labels},
            sample.value,
        )
        for sample in ours.samples
        if labels.items() <= sample.labels.items()
    ]
    return _metric(name, f"The same as {ours.name}.", samples, ours.type)
