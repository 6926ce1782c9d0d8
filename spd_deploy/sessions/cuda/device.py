"""One GPU through CUDA's driver API: memory, copies, a stream, graphs and events.

Called by ``ctypes``, since the driver library is there wherever there is a GPU. PyTorch would do as
well, but its CPU build, which many serve from, has no CUDA in it, importing it takes seconds, and
its allocator would stand between the addresses that a CUDA graph keeps for good and the memory
behind them. Two dozen functions of an interface that has not changed since CUDA 11.4 are less to
carry than another package.

Memory and handles are whole numbers; who makes them frees them, or closes the device with all.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import EngineFailed, SpdError, Unavailable
from spd_deploy.sessions.cuda.library import load_driver

Bytes = NDArray[np.uint8]

_OUT_OF_MEMORY = 2
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on
_TIMED = 0  # CU_EVENT_DEFAULT: with timing


class CudaDevice:
    """The first GPU that ``CUDA_VISIBLE_DEVICES`` leaves, with one stream.

    Its context is the one that TensorRT and every other library of this process uses. A thread
    that calls must have entered it (:meth:`enter`); that costs next to nothing.
    """

    def __init__(self) -> None:
        """Take hold of the GPU.

        Raises:
            Unavailable: no driver, no GPU, or none that can be used.
        """
        self._library = load_driver()
        self._device = self._first()
        self._context = self._made("cuDevicePrimaryCtxRetain", ctypes.c_int(self._device))
        self.enter()
        self.stream = self._made("cuStreamCreate", ctypes.c_uint(_NON_BLOCKING))

    @property
    def name(self) -> str:
        """What the driver calls it."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, ctypes.c_int(256), ctypes.c_int(self._device))
        return text.value.decode()

    @property
    def compute_capability(self) -> str:
        """NVIDIA's version of its instruction set, such as ``9.0``."""
        return f"{self._attribute(_MAJOR)}.{self._attribute(_MINOR)}"

    @property
    def cuda(self) -> str:
        """The newest version of CUDA that its driver runs, such as ``13.0``."""
        found = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(found))
        return f"{found.value // 1000}.{found.value % 1000 // 10}"

    def enter(self) -> None:
        """Let the calling thread use it."""
        self._call("cuCtxSetCurrent", ctypes.c_void_p(self._context))

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the GPU, aligned as any kernel wants it.

        Raises:
            Unavailable: the GPU's memory is full.
        """
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size), size=size)
        return int(address.value)

    def free(self, address: int) -> None:
        """Give memory on the GPU back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def allocate_pinned(self, size: int) -> tuple[int, Bytes]:
        """Memory of the host that the GPU copies from and to by itself: its address, and a view."""
        address = ctypes.c_void_p()
        self._call(
            "cuMemHostAlloc",
            ctypes.byref(address),
            ctypes.c_size_t(size),
            ctypes.c_uint(0),
            size=size,
        )
        assert address.value is not None  # noqa: S101 - the call succeeded
        held = (ctypes.c_uint8 * size).from_address(address.value)
        return address.value, np.ctypeslib.as_array(held)

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back; its view may not be used any more."""
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def copy_in(self, to: int, source: int, size: int) -> None:
        """Queue a copy of pinned memory to the GPU."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self.stream),
        )

    def copy_out(self, to: int, source: int, size: int) -> None:
        """Queue a copy from the GPU to pinned memory."""
        self._call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(to),
            ctypes.c_uint64(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self.stream),
        )

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[int]]:
        """What is queued inside is not run but recorded; the list then holds the graph of it."""
        made: list[int] = []
        graph = ctypes.c_void_p()
        self._call(
            "cuStreamBeginCapture_v2", ctypes.c_void_p(self.stream), ctypes.c_int(_THREAD_LOCAL)
        )
        try:
            yield made
        except BaseException:  # the stream must not stay in capture; what failed is told as it is
            self._library.cuStreamEndCapture(ctypes.c_void_p(self.stream), ctypes.byref(graph))
            if graph.value:
                self._library.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", ctypes.c_void_p(self.stream), ctypes.byref(graph))
        try:
            made.append(self._made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0)))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int) -> None:
        """Queue a recorded graph."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(self.stream))

    def free_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    @contextlib.contextmanager
    def timer(self) -> Iterator["Timer"]:
        """Two events to time queued work by."""
        made = [self._made("cuEventCreate", ctypes.c_uint(_TIMED)) for _ in range(2)]
        try:
            yield Timer(self, *made)
        finally:
            for event in made:
                self._call("cuEventDestroy_v2", ctypes.c_void_p(event))

    def record(self, event: int) -> None:
        """Queue an event."""
        self._call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(self.stream))

    def seconds_between(self, start: int, end: int) -> float:
        """The time between two events that have happened."""
        milliseconds = ctypes.c_float()
        self._call(
            "cuEventElapsedTime",
            ctypes.byref(milliseconds),
            ctypes.c_void_p(start),
            ctypes.c_void_p(end),
        )
        return float(milliseconds.value) / 1e3

    def close(self) -> None:
        """Let the GPU go; what was allocated must have been freed."""
        if self.stream:
            self.enter()
            self._call("cuStreamDestroy_v2", ctypes.c_void_p(self.stream))
            self.stream = 0
            self._call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(self._device))

    def _first(self) -> int:
        """The number of the first GPU."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise Unavailable(
                "the driver finds no GPU",
                got="0 devices; CUDA_VISIBLE_DEVICES may hide them",
                fix="run `spd doctor`, or use --runtime onnxruntime",
            )
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        return int(device.value)

    def _attribute(self, number: int) -> int:
        """A property of the GPU."""
        found = ctypes.c_int()
        self._call(
            "cuDeviceGetAttribute",
            ctypes.byref(found),
            ctypes.c_int(number),
            ctypes.c_int(self._device),
        )
        return int(found.value)

    def _made(self, function: str, *arguments: Any) -> int:
        """The handle that a function makes, which it writes through its first argument."""
        handle = ctypes.c_void_p()
        self._call(function, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def _call(self, function: str, *arguments: Any, size: int | None = None) -> None:
        """Call the driver.

        Raises:
            Unavailable: the GPU's memory is full.
            EngineFailed: any other error.
        """
        code = int(getattr(self._library, function)(*arguments))
        if code != 0:
            raise self._error(function, code, size)

    def _error(self, function: str, code: int, size: int | None) -> SpdError:
        """What an error code of the driver means."""
        if code == _OUT_OF_MEMORY:
            wanted = "" if size is None else f" for {size / 1e6:.0f} MB more"
            return Unavailable(
                f"the GPU has not enough free memory{wanted}",
                got=f"{function} failed with error {code}",
                fix="end what else runs on the GPU, or export with smaller --batch and --seq",
            )
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        said = text.value.decode() if text.value else "unknown"
        return EngineFailed(
            "the GPU failed", got=f"{function}: error {code}, {said}", fix="run `spd doctor`"
        )


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
