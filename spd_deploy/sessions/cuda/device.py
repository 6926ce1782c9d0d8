"""One GPU through CUDA's driver API: memory, copies, a stream, graphs and events.

PyTorch is not used for it, for three reasons. Its CPU build, which many servers have, has no CUDA.
Importing it takes seconds. And a CUDA graph keeps the addresses of its buffers, which PyTorch's
allocator could reuse.

Addresses and handles are integers. The caller that makes one also frees it.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import cuda_in
from spd_deploy.sessions.cuda.driver import load_driver, results

Bytes = NDArray[np.uint8]


class CudaDevice:
    """The first GPU of ``CUDA_VISIBLE_DEVICES``, with one stream.

    Its context is the primary context, which TensorRT and all other libraries of the process use.
    A thread must call :meth:`enter`, which is cheap, before it uses the device.
    """

    def __init__(self) -> None:
        """Retain the GPU's primary context and create a stream.

        Raises:
            Unavailable: the bindings, the driver or a usable GPU is missing.
        """
        self._driver = load_driver()
        self._device = self._first()
        self._context = self._one("cuDevicePrimaryCtxRetain", self._device)
        self.enter()
        # A non-blocking stream does not wait for the default stream.
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        self.stream_handle = int(self._one("cuStreamCreate", int(flags)))

    @property
    def name(self) -> str:
        """Name of the GPU, as the driver gives it."""
        text: bytes = self._one("cuDeviceGetName", 256, self._device)
        return text.split(b"\0")[0].decode()

    @property
    def compute_capability(self) -> str:
        """Compute capability of the GPU, such as ``9.0``."""
        kinds = self._driver.CUdevice_attribute
        numbers = (
            self._one("cuDeviceGetAttribute", kind, self._device)
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return ".".join(map(str, numbers))

    @property
    def cuda(self) -> str:
        """The newest CUDA version that the driver runs, such as ``13.0``."""
        return cuda_in(self._one("cuDriverGetVersion"))

    def enter(self) -> None:
        """Make the context current in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes on the GPU and return their address, aligned for any kernel.

        Raises:
            Unavailable: the GPU's memory is full.
        """
        return int(self._one("cuMemAlloc", size, size=size))

    def free(self, address: int) -> None:
        """Free memory on the GPU."""
        self._call("cuMemFree", address)

    def allocate_pinned(self, size: int) -> tuple[int, Bytes]:
        """Allocate pinned host memory: its address, and a view of its bytes."""
        address = int(self._one("cuMemHostAlloc", size, 0, size=size))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, address: int) -> None:
        """Free pinned memory; its view must not be used afterwards."""
        self._call("cuMemFreeHost", address)

    def copy_in(self, to: int, source: int, size: int) -> None:
        """Enqueue a copy of pinned memory to the GPU."""
        self._call("cuMemcpyHtoDAsync", to, source, size, self.stream_handle)

    def copy_out(self, to: int, source: int, size: int) -> None:
        """Enqueue a copy from the GPU to pinned memory."""
        self._call("cuMemcpyDtoHAsync", to, source, size, self.stream_handle)

    def wait(self) -> None:
        """Wait until the stream has done all enqueued work."""
        self._call("cuStreamSynchronize", self.stream_handle)

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[int]]:
        """Capture what the block enqueues instead of running it; the list then holds the graph."""
        made: list[int] = []
        modes = self._driver.CUstreamCaptureMode  # other threads may use the GPU meanwhile
        self._call(
            "cuStreamBeginCapture", self.stream_handle, modes.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        )
        try:
            yield made
        except BaseException:  # end the capture, and raise the original error
            _, graph = self._driver.cuStreamEndCapture(self.stream_handle)
            if graph is not None and int(graph):
                self._driver.cuGraphDestroy(graph)
            raise
        graph = self._one("cuStreamEndCapture", self.stream_handle)
        try:
            made.append(int(self._one("cuGraphInstantiate", graph, 0)))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int) -> None:
        """Enqueue a captured graph."""
        self._call("cuGraphLaunch", graph, self.stream_handle)

    def free_graph(self, graph: int) -> None:
        """Free a graph that was captured here; a launch of it must have ended."""
        self._call("cuGraphExecDestroy", graph)

    @contextlib.contextmanager
    def timer(self) -> Iterator["Timer"]:
        """A :class:`Timer` of two events, which are destroyed at the end of the block."""
        made = [int(self._one("cuEventCreate", 0)) for _ in range(2)]  # with timing
        try:
            yield Timer(self, *made)
        finally:
            for event in made:
                self._call("cuEventDestroy", event)

    def record(self, event: int) -> None:
        """Enqueue an event on the stream, which gets its time when the GPU reaches it."""
        self._call("cuEventRecord", event, self.stream_handle)

    def seconds_between(self, start: int, end: int) -> float:
        """Seconds between two events that have completed."""
        return float(self._one("cuEventElapsedTime", start, end)) / 1e3

    def close(self) -> None:
        """Destroy the stream and release the context; all memory must be freed before."""
        if self.stream_handle:
            self.enter()
            self._call("cuStreamDestroy", self.stream_handle)
            self.stream_handle = 0
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _first(self) -> Any:
        """The driver's handle of the first visible GPU."""
        if self._one("cuDeviceGetCount") < 1:
            raise Unavailable(
                "the driver finds no GPU",
                got="0 devices; CUDA_VISIBLE_DEVICES may hide them",
                fix="run `spd doctor`, or use --runtime onnxruntime",
            )
        return self._one("cuDeviceGet", 0)

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver that has no result."""
        results(self._driver, function, *arguments)

    def _one(self, function: str, *arguments: Any, size: int | None = None) -> Any:
        """Call a function of the driver that has one result."""
        (found,) = results(self._driver, function, *arguments, size=size)
        return found


class Timer:
    """Times the work that is enqueued between two events."""

    def __init__(self, device: CudaDevice, start: int, end: int) -> None:
        self._device = device
        self._start, self._end = start, end

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Time what the block enqueues."""
        self._device.record(self._start)
        yield
        self._device.record(self._end)

    def seconds(self) -> float:
        """Seconds on the GPU of the timed work; waits for it."""
        self._device.wait()
        return self._device.seconds_between(self._start, self._end)
