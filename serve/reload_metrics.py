"""Metrics of models that are replaced while the server runs."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter
from prometheus_client.metrics_core import Metric

from spd_deploy.domain.errors import SpdError


class ReloadMetrics:
    """Counts the versions that began to answer, and those that were refused."""

    def __init__(self) -> None:
        self._swaps = Counter(
            "spd_model_swaps",
            "Versions of a model that took the place of another while the server ran.",
            ["model"],
            registry=None,
        )
        self._refused = Counter(
            "spd_model_refused_versions",
            "Versions of a model that did not open or failed their verification, by reason.",
            ["model", "reason"],
            registry=None,
        )

    def watch(self, model: str) -> None:
        """Show a zero from the start."""
        self._swaps.labels(model)

    def swapped(self, model: str) -> None:
        """Count a version that took the place of another."""
        self._swaps.labels(model).inc()

    def refused(self, model: str, error: SpdError) -> None:
        """Count a version that was refused; the reason is the class of the error."""
        self._refused.labels(model, type(error).__name__).inc()

    def collect(self, _: Mapping[str, Metric]) -> Iterable[Metric]:
        """The metrics as Prometheus reads them."""
        yield from self._swaps.collect()
        yield from self._refused.collect()
