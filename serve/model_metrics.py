"""Merges the metrics of several models into those of the server, with a label ``model``."""

from collections.abc import Mapping

from prometheus_client.metrics_core import Metric

# What the server counts itself, for requests that belong to no model.
_OF_THE_SERVER = ("spd_requests", "spd_request_seconds")


def with_models(
    server: Mapping[str, Metric], models: Mapping[str, Mapping[str, Metric]]
) -> dict[str, Metric]:
    """The metrics by name; each model's samples have its name as the label ``model``.

    Args:
        server: the server's metrics by name. Of those that only models count, it has none.
        models: each model's metrics by name, by the model's name.
    """
    merged = {}
    for families in (server, *models.values()):
        for name, family in families.items():
            if name not in merged:
                merged[name] = Metric(name, family.documentation, family.type)
    for name, family in merged.items():
        own = server.get(name)
        if own is not None and name in _OF_THE_SERVER:
            family.samples += own.samples
        for model, families in models.items():
            if name in families:
                family.samples += [
                    one._replace(labels={**one.labels, "model": model})
                    for one in families[name].samples
                ]
    return merged
