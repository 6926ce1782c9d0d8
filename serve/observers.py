"""The observers of answered requests that the operator asks for: tracing and request log."""

from serve.metrics import Metrics
from serve.request_log import RequestLog
from serve.request_record import Observer

STANDARD_OUTPUT = 1


def observers_of(metrics: Metrics, *, log_share: float, tracing: bool) -> list[Observer]:
    """The tracing first, since the log names the trace.

    Raises:
        SpdError: tracing is not installed, or its variables ask for what there is not.
    """
    found: list[Observer] = []
    if tracing:
        from serve.tracing import tracing_from_environment

        found.append(tracing_from_environment())
    if log_share:
        found.append(RequestLog(STANDARD_OUTPUT, share=log_share, dropped=metrics.log_line_dropped))
    return found
