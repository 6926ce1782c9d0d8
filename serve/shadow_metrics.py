"""Metrics of shadows: how often and how far a second model differs from the one that answers."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

_DISTANCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LABELS = ("model", "shadow")


class ShadowMetrics:
    """Counts the texts that two models answered; the label ``shadow`` names the second."""

    def __init__(self) -> None:
        self._texts = _counter("texts", "Texts that the shadow ran too.")
        self._disagreements = _counter(
            "disagreements", "Texts that got another label from the shadow."
        )
        self._dropped = _counter("dropped", "Texts that were drawn when the shadow was busy.")
        self._errors = _counter("errors", "Texts on which the shadow failed.")
        self._distance = Histogram(
            "spd_shadow_score_distance",
            "Largest difference of a label's score between the model and its shadow.",
            _LABELS,
            buckets=_DISTANCES,
            registry=None,
        )

    def watch(self, model: str, shadow: str) -> None:
        """Show zeros from the start."""
        for one in (self._texts, self._disagreements, self._dropped, self._errors, self._distance):
            one.labels(model, shadow)

    def compared(self, model: str, shadow: str, *, distance: float, agree: bool) -> None:
        """Count a text that both answered."""
        self._texts.labels(model, shadow).inc()
        self._distance.labels(model, shadow).observe(distance)
        if not agree:
            self._disagreements.labels(model, shadow).inc()

    def dropped(self, model: str, shadow: str, texts: int) -> None:
        """Count texts for which the queue had no room."""
        self._dropped.labels(model, shadow).inc(texts)

    def failed(self, model: str, shadow: str, texts: int) -> None:
        """Count texts that the shadow did not answer."""
        self._errors.labels(model, shadow).inc(texts)

    def collect(self, _: Mapping[str, Metric]) -> Iterable[Metric]:
        """The metrics as Prometheus reads them."""
        for one in (self._texts, self._disagreements, self._dropped, self._errors, self._distance):
            yield from one.collect()


def _counter(name: str, help_: str) -> Counter:
    return Counter(f"spd_shadow_{name}", help_, _LABELS, registry=None)
