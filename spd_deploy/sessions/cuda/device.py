"""One GPU through CUDA's driver API: memory, copies, a stream, graphs and events.

PyTorch would do as well, but its CPU build, which many serve from, has no CUDA in it, importing it
takes seconds, and its allocator would stand between the addresses that a CUDA graph keeps for good
and the memory behind them.

Memory and handles are whole numbers; who makes them frees them, or closes the device with all.
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
    """The first GPU that ``CUDA_VISIBLE_DEVICES`` leaves, with one stream.

    Its context is the one that TensorRT and every other library of this process uses. A thread
    that calls must have entered it (:meth:`enter`); that costs next to nothing.
    """

    def __init__(self) -> None:
        """Take hold of the GPU.

        Raises:
            Unavailable: no bindings, no driver, no GPU, or none that can be used.
        """
        self._driver = load_driver()
        self._device = self._first()
        self._context = self._one("cuDevicePrimaryCtxRetain", self._device)
        self.enter()
        # A stream that does not wait for the default stream.
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        self.stream = int(self._one("cuStreamCreate", int(flags)))

    @property
    def name(self) -> str:
        """What the driver calls it."""
        text: bytes = self._one("cuDeviceGetName", 256, self._device)
        return text.split(b"\0")[0].decode()

    @property
    def compute_capability(self) -> str:
        """NVIDIA's version of its instruction set, such as ``9.0``."""
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
        """The newest version of CUDA that its driver runs, such as ``13.0``."""
        return cuda_in(self._one("cuDriverGetVersion"))

    def enter(self) -> None:
        """Let the calling thread use it."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the GPU, aligned as any kernel wants it.

        Raises:
            Unavailable: the GPU's memory is full.
        """
        return int(self._one("cuMemAlloc", size, size=size))

    def free(self, address: int) -> None:
        """Give memory on the GPU back."""
        self._call("cuMemFree", address)

    def allocate_pinned(self, size: int) -> tuple[int, Bytes]:
        """Memory of the host that the GPU copies from and to by itself: its address, and a view."""
        address = int(self._one("cuMemHostAlloc", size, 0, size=size))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back; its view may not be used any more."""
        self._call("cuMemFreeHost", address)

    def copy_in(self, to: int, source: int, size: int) -> None:
        """Queue a copy of pinned memory to the GPU."""
        self._call("cuMemcpyHtoDAsync", to, source, size, self.stream)

    def copy_out(self, to: int, source: int, size: int) -> None:
        """Queue a copy from the GPU to pinned memory."""
        self._call("cuMemcpyDtoHAsync", to, source, size, self.stream)

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        self._call("cuStreamSynchronize", self.stream)

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[int]]:
        """What is queued inside is not run but recorded; the list then holds the graph of it."""
        made: list[int] = []
        modes = self._driver.CUstreamCaptureMode  # other threads may go on meanwhile
        self._call("cuStreamBeginCapture", self.stream, modes.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            yield made
        except BaseException:  # the stream must not stay in capture; what failed is told as it is
            _, graph = self._driver.cuStreamEndCapture(self.stream)
            if graph is not None and int(graph):
                self._driver.cuGraphDestroy(graph)
            raise
        graph = self._one("cuStreamEndCapture", self.stream)
        try:
            made.append(int(self._one("cuGraphInstantiate", graph, 0)))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int) -> None:
        """Queue a recorded graph."""
        self._call("cuGraphLaunch", graph, self.stream)

    def free_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cuGraphExecDestroy", graph)

    @contextlib.contextmanager
    def timer(self) -> Iterator["Timer"]:
        """Two events to time queued work by."""
        made = [int(self._one("cuEventCreate", 0)) for _ in range(2)]  # with timing
        try:
            yield Timer(self, *made)
        finally:
            for event in made:
                self._call("cuEventDestroy", event)

    def record(self, event: int) -> None:
        """Queue an event."""
        self._call("cuEventRecord", event, self.stream)

    def seconds_between(self, start: int, end: int) -> float:
        """The time between two events that have happened."""
        return float(self._one("cuEventElapsedTime", start, end)) / 1e3

    def close(self) -> None:
        """Let the GPU go; what was allocated must have been freed."""
        if self.stream:
            self.enter()
            self._call("cuStreamDestroy", self.stream)
            self.stream = 0
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _first(self) -> Any:
        """The driver's handle of the first GPU."""
        if self._one("cuDeviceGetCount") < 1:
            raise Unavailable(
                "the driver finds no GPU",
                got="0 devices; CUDA_VISIBLE_DEVICES may hide them",
                fix="run `spd doctor`, or use --runtime onnxruntime",
            )
        return self._one("cuDeviceGet", 0)

    def _call(self, function: str, *arguments: Any) -> None:
        """Call the driver for what it does."""
        results(self._driver, function, *arguments)

    def _one(self, function: str, *arguments: Any, size: int | None = None) -> Any:
        """Call the driver for the one value that it gives."""
        (found,) = results(self._driver, function, *arguments, size=size)
        return found


class Timer:
    """Times work that is queued between its start and its end."""

    def __init__(self, device: CudaDevice, start: int, end: int) -> None:
        self._device = device
        self._start, self._end = start, end

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """What is queued inside is timed."""
        self._device.record(self._start)
        yield
        self._device.record(self._end)

    def seconds(self) -> float:
        """The time that it took on the GPU, once it is done."""
        self._device.wait()
        return self._device.seconds_between(self._start, self._end)
