"""Runs that stay on the GPU: what a session may offer beyond ``run``, so that it is timed finely.

Every session is timed by the host's clock around ``run``, copies and all. One that is also
:class:`DeviceRuns` puts a batch into device memory once and enqueues it as often as it is asked to,
so that the GPU's own time, the copies and the host's part can each be told apart. A session that
offers nothing of this is still a session; the report then says that its GPU time is not known.

To offer it, a session has one method, ``prepare``, and gives back an object with the five members
of :class:`DeviceRun`:

    stream      the ``cudaStream_t`` that everything is enqueued on, as a whole number: torch's
                ``Stream.cuda_stream``, what TensorRT's ``execute_async_v3`` takes, what ONNX
                Runtime was given as ``user_compute_stream``. Never the default stream, 0.
    load        enqueue the copy of the batch from pinned host memory to the device
    enqueue     enqueue one run, from ids on the device to logits on the device, and return
    unload      enqueue the copy of the logits from the device to pinned host memory
    logits      wait for the stream, and give what ``unload`` copied

None of the first three waits for the GPU, allocates, or moves a buffer; so they may be called in
any number and order after one ``load``, and events recorded on ``stream`` around them time them.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.text import Batch


class DeviceRun(Protocol):
    """One batch at one place in device memory, with room for its logits; the module tells more."""

    @property
    def stream(self) -> int:
        """The ``cudaStream_t`` of everything below."""
        ...

    def load(self) -> None:
        """Enqueue the copy of the ids to the device."""
        ...

    def enqueue(self) -> None:
        """Enqueue one run; the logits stay on the device."""
        ...

    def unload(self) -> None:
        """Enqueue the copy of the logits to the host."""
        ...

    def logits(self) -> NDArray[np.float32]:
        """Logits ``[B, C]`` as last unloaded, in memory of the caller's own; waits for them."""
        ...


@runtime_checkable
class DeviceRuns(Protocol):
    """A session whose batches can be kept on the GPU."""

    def prepare(self, batch: Batch, *, graph: bool) -> DeviceRun:
        """A batch on the device, loaded and warm; with ``graph``, its run replays a CUDA graph.

        Raises:
            Unavailable: it cannot run it so, with the reason: no graph can be captured, no bucket
                holds the shape.
            EngineFailed: it should have, and failed.
        """
        ...
