"""What TensorRT says while it works: it reports errors to a logger and returns nothing.

A process has one logger. TensorRT keeps that of its first object and passes over those of later
ones, so a logger for each would tell the second engine's errors to the first, and be gone with the
first while TensorRT still calls it. Ours is one for good, and hands its lines to all who listen.
"""

import functools
import threading
import weakref
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.sessions.cuda.room import says_no_room

if TYPE_CHECKING:
    import tensorrt as trt

_SPARSITY = "(Sparsity)"
# So many lines are kept; an engine that serves for months listens all the while.
_KEPT = 100


class Messages:
    """Keeps what matters of the lines that are logged while it lives, whatever they are about.

    Attributes:
        logger: for TensorRT.
        errors: the last lines of severity error and worse.
        sparsity: what the builder says of sparse kernels.
    """

    def __init__(self, tensorrt: ModuleType) -> None:
        self.errors = deque[str](maxlen=_KEPT)
        self.sparsity = deque[str](maxlen=_KEPT)
        self.logger = _logger_of(tensorrt)
        with _LOCK:
            _LISTENING.add(self)

    def take(self, severity: int, text: str) -> None:
        """A line; the lower the severity's number, the worse."""
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
        """The error for something that TensorRT did not make: out of memory, or ``otherwise``."""
        said = self.why()
        if says_no_room(said):
            return Unavailable(
                "the GPU has not enough free memory",
                got=said,
                fix="end what else runs on the GPU, or export with fewer and smaller --batch "
                "and --seq",
            )
        return otherwise


_LISTENING = weakref.WeakSet[Messages]()
# TensorRT logs from threads of its own.
_LOCK = threading.Lock()


@functools.cache
def _logger_of(tensorrt: ModuleType) -> "trt.ILogger":
    """The process's logger, which hands its lines on."""

    class Logger(tensorrt.ILogger):  # type: ignore[name-defined,misc]  # known when it is imported
        """TensorRT's side of it."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            """One line."""
            with _LOCK:
                listening = list(_LISTENING)
            for messages in listening:
                messages.take(int(severity), msg)

    made: trt.ILogger = Logger()
    return made
