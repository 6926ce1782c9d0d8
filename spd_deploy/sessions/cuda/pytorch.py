"""PyTorch on CUDA: whether it works, and buffers that keep a batch on the GPU."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.text import Batch


def why_no_cuda() -> str | None:
    """The reason why PyTorch finds no CUDA device, with its warnings; None if it finds one."""
    import torch

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    reasons = [str(one.message) for one in warned]  # such as a driver that is too old
    return ": ".join([f"PyTorch {torch.__version__}, built {built}", *reasons])


def refuse_without_cuda() -> None:
    """Refuse a machine where PyTorch finds no CUDA device.

    Raises:
        Unavailable: PyTorch finds no device; the error has the reason.
    """
    if (why := why_no_cuda()) is not None:
        raise Unavailable(
            "PyTorch finds no CUDA device", got=why, fix="run `spd doctor`, or use --device cpu"
        )


class Buffers:
    """A batch's ids and logits in pinned memory and on the GPU, with copies on one stream.

    A base of :class:`~spd_deploy.sessions.device_runs.DeviceRun` classes, which add ``enqueue``.
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
        """The address of the ``cudaStream_t``, as the driver and Triton take it."""
        return int(self.queue.cuda_stream)

    def fill(self, batch: Batch) -> None:
        """Copy another batch of the same shape into pinned memory."""
        import torch

        for place, array in enumerate(batch.named().values()):
            self.host_3BS[place].copy_(torch.from_numpy(array))

    def load(self) -> None:
        """Enqueue the copy of ids, mask and types to the GPU."""
        import torch

        with torch.cuda.stream(self.queue):
            self.device_3BS.copy_(self.host_3BS, non_blocking=True)

    def unload(self) -> None:
        """Enqueue the copy of the logits to the host."""
        import torch

        with torch.cuda.stream(self.queue):
            self.back_BC.copy_(self.out_BC, non_blocking=True)

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the last ``unload``, copied; waits for the stream."""
        self.queue.synchronize()
        return np.array(self.back_BC.numpy(), np.float32)
