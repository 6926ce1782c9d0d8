"""Whether PyTorch can use a GPU, and buffers of it that a batch stays in."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.text import Batch


def why_no_cuda() -> str | None:
    """Why PyTorch finds no CUDA device, with what it says of the driver; None if it finds one."""
    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    said = [str(one.message) for one in told]  # such as that the driver is too old
    return ": ".join([f"PyTorch {torch.__version__}, built {built}", *said])


def refuse_without_cuda() -> None:
    """Refuse to go on where PyTorch finds no CUDA device.

    Raises:
        Unavailable: it finds none; with the reason.
    """
    if (why := why_no_cuda()) is not None:
        raise Unavailable(
            "PyTorch finds no CUDA device", got=why, fix="run `spd doctor`, or use --device cpu"
        )


class Buffers:
    """A batch's ids in pinned memory and on the GPU, and its logits in both, on one stream.

    All of :class:`~spd_deploy.sessions.device_runs.DeviceRun` but ``enqueue``, which belongs to the
    runtime.
    """

    def __init__(self, batch: Batch, stream: Any, classes: int) -> None:
        import torch

        self.queue = stream
        self.host_3BS = torch.empty((3, *batch.ids_BS.shape), dtype=torch.int64, pin_memory=True)
        self.fill(batch)
        self.device_3BS = self.host_3BS.to("cuda")
        self.out_BC = torch.empty(len(batch.ids_BS), classes, device="cuda")
        self.back_BC = torch.empty(len(batch.ids_BS), classes, pin_memory=True)
        torch.cuda.synchronize()  # the copies were on another stream

    @property
    def stream(self) -> int:
        """The ``cudaStream_t``."""
        return int(self.queue.cuda_stream)

    def fill(self, batch: Batch) -> None:
        """Put another batch of the same shape into pinned memory."""
        import torch

        for place, array in enumerate(batch.named().values()):
            self.host_3BS[place].copy_(torch.from_numpy(array))

    def load(self) -> None:
        """Enqueue the copy of all three arrays to the GPU."""
        import torch

        with torch.cuda.stream(self.queue):
            self.device_3BS.copy_(self.host_3BS, non_blocking=True)

    def unload(self) -> None:
        """Enqueue the copy of the logits to the host."""
        import torch

        with torch.cuda.stream(self.queue):
            self.back_BC.copy_(self.out_BC, non_blocking=True)

    def logits(self) -> NDArray[np.float32]:
        """Of the last copy, in memory of the caller's own; waits for it."""
        self.queue.synchronize()
        return np.array(self.back_BC.numpy(), np.float32)
