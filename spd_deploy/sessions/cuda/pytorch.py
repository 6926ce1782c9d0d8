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

        self.stream = stream
        self.host_3BS = torch.empty((3, *batch.ids_BS.shape), dtype=torch.int64, pin_memory=True)
        self.set_batch(batch)
        self.device_3BS = self.host_3BS.to("cuda")
        self.device_logits_BC = torch.empty(len(batch.ids_BS), classes, device="cuda")
        self.host_logits_BC = torch.empty(len(batch.ids_BS), classes, pin_memory=True)
        torch.cuda.synchronize()  # the copies were on another stream

    @property
    def stream_handle(self) -> int:
        """The address of the ``cudaStream_t``, as the driver and Triton take it."""
        return int(self.stream.cuda_stream)

    def set_batch(self, batch: Batch) -> None:
        """Copy another batch of the same shape into pinned memory."""
        import torch

        for place, array in enumerate(batch.named().values()):
            self.host_3BS[place].copy_(torch.from_numpy(array))

    def copy_to_device(self) -> None:
        """Enqueue the copy of ids, mask and types to the GPU."""
        import torch

        with torch.cuda.stream(self.stream):
            self.device_3BS.copy_(self.host_3BS, non_blocking=True)

    def copy_to_host(self) -> None:
        """Enqueue the copy of the logits to the host."""
        import torch

        with torch.cuda.stream(self.stream):
            self.host_logits_BC.copy_(self.device_logits_BC, non_blocking=True)

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the last ``copy_to_host``, copied; waits for the stream."""
        self.stream.synchronize()
        return np.array(self.host_logits_BC.numpy(), np.float32)
