"""TensorRT's log messages, which carry the reason when one of its functions returns nothing.

TensorRT has one logger in a process: it keeps the logger of its first object and ignores those of
later objects. A logger per engine would receive the errors of other engines, and could be freed
while TensorRT still calls it. Therefore there is one logger, which lives as long as the process and
passes its lines to every :class:`Messages` that is alive.
"""

import functools
import threading
import weakref
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.sessions.cuda.oom import says_no_room

if TYPE_CHECKING:
    import tensorrt as trt

_SPARSITY = "(Sparsity)"
# A bound on the lines kept, since an engine that serves collects them for months.
_KEPT = 100


class Messages:
    """Collects errors and sparsity messages that are logged while it is alive.

    Attributes:
        logger: the process's logger, to pass to TensorRT.
        errors: the last lines of severity error and worse.
        sparsity: the builder's last lines on sparse tactics.
    """

    def __init__(self, tensorrt: ModuleType) -> None:
        self.errors = deque[str](maxlen=_KEPT)
        self.sparsity = deque[str](maxlen=_KEPT)
        self.logger = _logger_of(tensorrt)
        with _LOCK:
            _LISTENING.add(self)

    def take(self, severity: int, text: str) -> None:
        """Keep a line if it matters; severity 0 is an internal error, 1 an error, more is less."""
        if severity <= 1:
            self.errors.append(text)
        if _SPARSITY in text:
            self.sparsity.append(text[text.index(_SPARSITY) :].strip())

    def why(self) -> str:
        """The errors so far, in one line."""
        return (
            "; ".join(" ".join(line.split()) for line in self.errors) or "TensorRT gave no reason"
        )

    def failure(self, otherwise: SpdError) -> SpdError:
        """Out of memory, if a message says so, else ``otherwise``, when TensorRT made no object."""
        reason = self.why()
        if says_no_room(reason):
            return Unavailable(
                "the GPU has not enough free memory",
                got=reason,
                fix="end what else runs on the GPU, or export with fewer and smaller --batch "
                "and --seq",
            )
        return otherwise


_LISTENING = weakref.WeakSet[Messages]()
# TensorRT logs from threads of its own.
_LOCK = threading.Lock()


@functools.cache
def _logger_of(tensorrt: ModuleType) -> "trt.ILogger":
    """The process's logger, which passes its lines on to every listener."""

    class Logger(tensorrt.ILogger):  # type: ignore[name-defined,misc]  # known when it is imported
        """An ``ILogger`` that passes its lines on."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            """Pass one line on; TensorRT's callback."""
            with _LOCK:
                listening = list(_LISTENING)
            for messages in listening:
                messages.take(int(severity), msg)

    made: trt.ILogger = Logger()
    return made
