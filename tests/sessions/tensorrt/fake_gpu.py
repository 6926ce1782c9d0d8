"""A stand-in for a GPU: memory is the host's, and its one stream runs what it is given at once.

It has the methods of :class:`~spd_deploy.sessions.cuda.device.CudaDevice`, has memory of so many
bytes, counts what is held, records graphs, and remembers the order in which things were called.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import Unavailable

Work = Callable[[], None]
STREAM = 7


class FakeGpu:
    """One GPU, and what is on it; whoever opens it gets the same."""

    def __init__(
        self,
        *,
        name: str = "NVIDIA H200",
        capability: str = "9.0",
        cuda: str = "13.0",
        memory_bytes: int = 1 << 30,
    ) -> None:
        self.name, self.compute_capability, self.cuda = name, capability, cuda
        self.free_bytes = memory_bytes
        self.stream_handle = STREAM
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: dict[int, NDArray[np.uint8]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.recorded: list[Work] | None = None
        self.calls: list[str] = []
        self.now_s = 0.0
        self._open = 0

    @property
    def held(self) -> int:
        """Things that were made and not given back."""
        return self._open + len(self.memory) + len(self.pinned) + len(self.graphs)

    def open(self) -> "FakeGpu":
        self._open += 1
        return self

    def close(self) -> None:
        self._open -= 1

    def submit(self, work: Work) -> None:
        """Queue work: run it at once, or record it."""
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def enter(self) -> None:
        self.calls.append("enter")

    def allocate(self, size: int) -> int:
        self.calls.append("allocate")
        if size > self.free_bytes:
            raise Unavailable("the GPU has not enough free memory", fix="end what else runs on it")
        self.free_bytes -= size
        return _keep(self.memory, size)

    def free(self, address: int) -> None:
        self.free_bytes += len(self.memory.pop(address))

    def allocate_pinned(self, size: int) -> tuple[int, NDArray[np.uint8]]:
        self.calls.append("allocate_pinned")
        address = _keep(self.pinned, size)
        return address, self.pinned[address]

    def free_pinned(self, address: int) -> None:
        del self.pinned[address]

    def copy_in(self, to: int, source: int, size: int) -> None:
        self.calls.append("copy_in")
        target, pinned = self.memory[to], self.pinned[source]
        self.submit(lambda: target.__setitem__(slice(size), pinned[:size]))

    def copy_out(self, to: int, source: int, size: int) -> None:
        self.calls.append("copy_out")
        pinned, memory = self.pinned[to], self.memory[source]
        self.submit(lambda: pinned.__setitem__(slice(size), memory[:size]))

    def wait(self) -> None:
        self.calls.append("wait")
        assert self.recorded is None, "nothing may wait while a graph is captured"

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[int]]:
        made: list[int] = []
        self.recorded = []
        try:
            yield made
            made.append(max(self.graphs, default=0) + 1)
            self.graphs[made[0]] = self.recorded
        finally:
            self.recorded = None

    def launch(self, graph: int) -> None:
        self.calls.append("launch")
        for work in self.graphs[graph]:
            self.submit(work)

    def free_graph(self, graph: int) -> None:
        del self.graphs[graph]

    @contextlib.contextmanager
    def timer(self) -> Iterator["_Timer"]:
        yield _Timer(self)

    def view(self, address: int, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        """Numbers of the GPU's memory, from anywhere within what was allocated at once."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        start, block = next(
            (at, block) for at, block in self.memory.items() if at <= address < at + len(block)
        )
        found: NDArray[Any] = block[address - start :][:size].view(kind).reshape(shape)
        return found


class _Timer:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self._taken_s = gpu, 0.0

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        before_s = self._gpu.now_s
        yield
        self._taken_s = self._gpu.now_s - before_s

    def seconds(self) -> float:
        return self._taken_s


def _keep(where: dict[int, NDArray[np.uint8]], size: int) -> int:
    """Memory of the host by its own address."""
    block = np.zeros(size, np.uint8)
    where[block.ctypes.data] = block
    return block.ctypes.data
