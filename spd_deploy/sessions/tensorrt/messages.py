"""What TensorRT says while it works: it reports errors to a logger and returns nothing."""

from types import ModuleType
from typing import TYPE_CHECKING

from spd_deploy.domain.errors import SpdError, Unavailable
from spd_deploy.sessions.cuda.room import says_no_room

if TYPE_CHECKING:
    import tensorrt as trt

_SPARSITY = "(Sparsity)"


class Messages:
    """Keeps what matters of a logger's lines.

    Attributes:
        logger: for TensorRT; it must live as long as what was made with it.
        errors: lines of severity error and worse.
        sparsity: what the builder says of sparse kernels.
    """

    def __init__(self, tensorrt: ModuleType) -> None:
        self.errors: list[str] = []
        self.sparsity: list[str] = []
        self.logger = _logger_of(tensorrt, self)

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


def _logger_of(tensorrt: ModuleType, messages: Messages) -> "trt.ILogger":
    """A logger that hands its lines on."""

    class Logger(tensorrt.ILogger):  # type: ignore[name-defined,misc]  # known when it is imported
        """TensorRT's side of it."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            """One line."""
            messages.take(int(severity), msg)

    made: trt.ILogger = Logger()
    return made
