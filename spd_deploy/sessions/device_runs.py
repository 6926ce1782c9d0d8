"""An optional interface of sessions whose batches can stay on the GPU, for timing by CUDA events.

Every session is timed by the host's clock around ``run``, which includes the copies. A session that
implements :class:`DeviceRuns` also copies a batch to the GPU once and enqueues runs on it. The time
of the GPU, of the copies and of the host can then be measured separately. For other sessions a
report says that the GPU time is unknown.

The session implements ``prepare``, which returns an object with five members (:class:`DeviceRun`):

    stream_handle     the ``cudaStream_t`` of all its work, as an integer: PyTorch's
                      ``Stream.cuda_stream``, the argument of TensorRT's ``execute_async_v3``, ONNX
                      Runtime's ``user_compute_stream``. It is never 0, the default stream.
    copy_to_device    enqueues the copy of the batch from pinned host memory to the device
    enqueue           enqueues one run, from ids on the device to logits on the device
    copy_to_host      enqueues the copy of the logits from the device to pinned host memory
    logits            waits for the stream, and returns what ``copy_to_host`` copied

``copy_to_device``, ``enqueue`` and ``copy_to_host`` neither wait for the GPU nor allocate nor move
a buffer. After one ``copy_to_device`` they may be called in any number and order, and events on the
stream time them.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.text import Batch


class DeviceRun(Protocol):
    """One batch in device memory with space for its logits; see the module."""

    @property
    def stream_handle(self) -> int:
        """The ``cudaStream_t`` of all work of this object."""
        ...

    def copy_to_device(self) -> None:
        """Enqueue the copy of the ids to the device."""
        ...

    def enqueue(self) -> None:
        """Enqueue one run; the logits stay on the device."""
        ...

    def copy_to_host(self) -> None:
        """Enqueue the copy of the logits to the host."""
        ...

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` of the last ``copy_to_host``, copied; waits for the stream."""
        ...


@runtime_checkable
class DeviceRuns(Protocol):
    """A session whose batches can be kept on the GPU."""

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """Load a batch onto the device and warm it up; with ``graph``, runs replay a CUDA graph.

        Raises:
            Unavailable: the session cannot do so, such as where no graph can be captured or no
                bucket holds the shape; the error has the reason.
            EngineFailed: the run failed.
        """
        ...
