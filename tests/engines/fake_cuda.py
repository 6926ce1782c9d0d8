"""A stand-in for NVIDIA's driver library: memory is the host's, and a stream runs what it is given.

It answers the calls that ``sessions.cuda.device`` makes, with their own arguments, so addresses,
sizes and orders of arguments are checked as the real library would. It has a memory of so many
bytes, counts what is held, records graphs, and remembers the order in which things were called.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from spd_deploy.sessions.cuda import library as driver_library

_OUT_OF_MEMORY, _INVALID = 2, 1
Work = Callable[[], None]


class FakeDriver:
    """``libcuda.so.1``."""

    def __init__(
        self,
        *,
        name: str = "NVIDIA H200",
        capability: tuple[int, int] = (9, 0),
        cuda: int = 13000,
        count: int = 1,
        memory_bytes: int = 1 << 30,
    ) -> None:
        self.name, self.capability, self.cuda, self.count = name, capability, cuda, count
        self.free_bytes = memory_bytes
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.capturing: int | None = None
        self.graphs: dict[int, list[Work]] = {}
        self.events: dict[int, float] = {}
        self.calls: list[str] = []
        self._handles, self._now = 100, 0.0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu"):
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    @property
    def held(self) -> int:
        """Things that were made and not given back."""
        return sum(map(len, (self.memory, self.pinned, self.streams, self.graphs, self.events)))

    def submit(self, stream: int, work: Work) -> None:
        """Queue work: run it at once, or record it."""
        assert stream in self.streams, f"no such stream: {stream}"
        if self.capturing == stream:
            self.streams[stream].append(work)
        else:
            work()

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDriverGetVersion(self, found: Any) -> int:
        found._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, found: Any) -> int:
        found._obj.value = self.count
        return 0

    def cuDeviceGet(self, found: Any, number: Any) -> int:
        found._obj.value = number.value
        return 0

    def cuDeviceGetName(self, text: Any, size: Any, device: Any) -> int:
        text.value = self.name.encode()
        return 0

    def cuDeviceGetAttribute(self, found: Any, number: Any, device: Any) -> int:
        found._obj.value = self.capability[{75: 0, 76: 1}[number.value]]
        return 0

    def cuDevicePrimaryCtxRetain(self, found: Any, device: Any) -> int:
        found._obj.value = 7
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        return 0 if context.value == 7 else _INVALID

    def cuMemAlloc_v2(self, found: Any, size: Any) -> int:
        if size.value > self.free_bytes:
            return _OUT_OF_MEMORY
        self.free_bytes -= size.value
        held = (ctypes.c_uint8 * size.value)()
        found._obj.value = ctypes.addressof(held)
        self.memory[found._obj.value] = held
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        self.free_bytes += len(self.memory.pop(address.value))
        return 0

    def cuMemHostAlloc(self, found: Any, size: Any, flags: Any) -> int:
        held = (ctypes.c_uint8 * size.value)()
        found._obj.value = ctypes.addressof(held)
        self.pinned[found._obj.value] = held
        return 0

    def cuMemFreeHost(self, address: Any) -> int:
        del self.pinned[address.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        assert source.value in self.pinned, "a copy from memory that is not pinned waits"
        assert size.value <= len(self.memory[to.value])
        self.submit(stream.value, lambda: _move(to.value, source.value, size.value))
        return 0

    def cuMemcpyDtoHAsync_v2(self, to: Any, source: Any, size: Any, stream: Any) -> int:
        assert to.value in self.pinned, "a copy to memory that is not pinned waits"
        self.submit(stream.value, lambda: _move(to.value, source.value, size.value))
        return 0

    def cuStreamCreate(self, found: Any, flags: Any) -> int:
        assert flags.value == 1, "a stream that waits for the default stream"
        found._obj.value = self._handle()
        self.streams[found._obj.value] = []
        return 0

    def cuStreamDestroy_v2(self, stream: Any) -> int:
        del self.streams[stream.value]
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:
        return _INVALID if self.capturing == stream.value else 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        self.capturing = stream.value
        self.streams[stream.value] = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        graph._obj.value = self._handle()
        self.graphs[graph._obj.value] = self.streams[stream.value]
        self.capturing = None
        return 0

    def cuGraphInstantiateWithFlags(self, found: Any, graph: Any, flags: Any) -> int:
        found._obj.value = self._handle()
        self.graphs[found._obj.value] = self.graphs[graph.value]
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        del self.graphs[graph.value]
        return 0

    def cuGraphExecDestroy(self, graph: Any) -> int:
        del self.graphs[graph.value]
        return 0

    def cuGraphLaunch(self, graph: Any, stream: Any) -> int:
        for work in self.graphs[graph.value]:
            self.submit(stream.value, work)
        return 0

    def cuEventCreate(self, found: Any, flags: Any) -> int:
        found._obj.value = self._handle()
        self.events[found._obj.value] = 0.0
        return 0

    def cuEventDestroy_v2(self, event: Any) -> int:
        del self.events[event.value]
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        self.submit(stream.value, lambda: self.events.__setitem__(event.value, self._now))
        return 0

    def cuEventElapsedTime(self, found: Any, start: Any, end: Any) -> int:
        found._obj.value = (self.events[end.value] - self.events[start.value]) * 1e3
        return 0

    def cuGetErrorString(self, code: Any, text: Any) -> int:
        text._obj.value = b"invalid value"
        return 0

    def spend(self, seconds: float) -> None:
        """Let time pass on the GPU."""
        self._now += seconds

    def _handle(self) -> int:
        self._handles += 1
        return self._handles


def _move(to: int, source: int, size: int) -> None:
    ctypes.memmove(to, source, size)


class FakeManagement:
    """``libnvidia-ml.so.1``."""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlShutdown(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        text.value = b"580.95.05"
        return 0


def install(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> FakeDriver:
    """Let the driver's library be found by its name."""
    libraries = {"libcuda.so.1": driver, "libnvidia-ml.so.1": FakeManagement()}
    monkeypatch.setattr(driver_library, "_opened", libraries.__getitem__)
    return driver
