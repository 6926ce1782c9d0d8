"""The GPU that PyTorch computes on: whether it is there, what it is, and its clock.

Events, streams and memory go through PyTorch, which every installation has; sessions of other
runtimes are timed by events on their own streams, which they name as numbers.
"""

from typing import Any, Protocol

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import processes
from spd_deploy.sessions.cuda.pytorch import why_no_cuda


class Gpu(Protocol):
    """What the timing loops need of a GPU; a simulated one will do."""

    def mark(self, stream: int) -> Any:
        """A point in time on the stream: when everything enqueued so far is done."""
        ...

    def between_s(self, first: Any, last: Any) -> float:
        """Seconds from one mark to a later one, both of which the stream has passed."""
        ...

    def wait(self, stream: int) -> None:
        """Return when the stream is idle."""
        ...

    def flush(self, stream: int) -> None:
        """Enqueue writes over the whole L2 cache."""
        ...


class CudaGpu:
    """The current device of PyTorch."""

    def __init__(self) -> None:
        """Find it, and keep a buffer to write over its L2 cache with.

        Raises:
            Unavailable: PyTorch sees none, with the reason.
        """
        refuse_without_cuda()
        import torch

        self.l2_bytes = int(torch.cuda.get_device_properties().L2_cache_size)
        # Twice the cache: no part of what lay there before stays, however lines are replaced.
        self._over = torch.empty(2 * max(self.l2_bytes, 1 << 20), dtype=torch.int8, device="cuda")
        self._streams: dict[int, Any] = {}

    def mark(self, stream: int) -> Any:
        """An event, recorded."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream(stream))
        return event

    def between_s(self, first: Any, last: Any) -> float:
        """The time between two events."""
        return float(first.elapsed_time(last)) / 1e3

    def wait(self, stream: int) -> None:
        """Until the stream is idle."""
        self._stream(stream).synchronize()

    def flush(self, stream: int) -> None:
        """A write over the buffer."""
        import torch

        with torch.cuda.stream(self._stream(stream)):
            self._over.zero_()

    def _stream(self, stream: int) -> Any:
        """PyTorch's view of a stream that someone else may own."""
        import torch

        if stream not in self._streams:
            self._streams[stream] = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
        return self._streams[stream]


def refuse_without_cuda() -> None:
    """Refuse to go on where PyTorch cannot use a GPU.

    Raises:
        Unavailable: with the reason, as far as PyTorch tells.
    """
    if (why := why_no_cuda()) is not None:
        raise Unavailable(
            "there is no GPU to measure on",
            got=why,
            fix="run `spd doctor` for what is missing; a CPU is measured with --device cpu",
        )


def uuid() -> str | None:
    """The GPU's id as NVML spells it; None where PyTorch does not tell."""
    import torch

    found = getattr(torch.cuda.get_device_properties(), "uuid", None)
    return None if found is None else f"GPU-{found}"


def versions() -> dict[str, str]:
    """The CUDA libraries that PyTorch runs with."""
    import torch

    found = {"CUDA of torch": torch.version.cuda}
    if (cudnn := torch.backends.cudnn.version()) is not None:  # type: ignore[no-untyped-call]
        found["cuDNN"] = str(cudnn)
    if torch.backends.cusparselt.is_available():
        found["cuSPARSELt"] = str(torch.backends.cusparselt.version())
    return {name: number for name, number in found.items() if number}


def other_processes() -> int | None:
    """How many other processes compute on the machine's GPUs; None where it is not told.

    By their number, since in a container NVML may know this one by another id.
    """
    import torch

    found = processes()
    own = int(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return None if found is None else max(0, found - own)


def used_bytes() -> int:
    """The device's memory that is in use, by whomever."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)
