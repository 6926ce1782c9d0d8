"""A GPU of numbers: a stream that works behind the host, and sessions that take known times on it.

The host's clock moves when the host does something; the device starts what is enqueued when it is
idle, and no earlier than it was enqueued, as a real stream does.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.text import Batch

STREAM = 7


@dataclass
class SimulatedGpu:
    """Host and device, in nanoseconds, with what a write over the cache and a pause take."""

    now_ns: int = 0
    idle_at_ns: int = 0
    flush_ns: int = 50_000
    pause_ns: int = 200_000
    cold: bool = False
    log: list[str] = field(default_factory=list)

    def clock(self) -> int:
        return self.now_ns

    def work(self, host_ns: int, device_ns: int) -> None:
        """The host spends some time enqueueing, then the device some doing it."""
        self.now_ns += host_ns
        self.idle_at_ns = max(self.idle_at_ns, self.now_ns) + device_ns

    def mark(self, stream: int) -> int:
        assert stream == STREAM
        return max(self.idle_at_ns, self.now_ns)

    def seconds_between(self, first: int, last: int) -> float:
        return (last - first) / 1e9

    def wait(self, stream: int) -> None:
        assert stream == STREAM
        self.now_ns = max(self.now_ns, self.idle_at_ns)

    def flush(self, stream: int) -> None:
        assert stream == STREAM
        self.cold = True
        self.work(1_000, self.flush_ns)

    def pause(self, stream: int) -> None:
        assert stream == STREAM
        self.work(1_000, self.pause_ns)


@dataclass
class Times:
    """What a session's runs take: enqueueing and running, and how much longer cold."""

    host_ns: int = 20_000
    device_ns: int = 100_000
    cold_ns: int = 30_000
    graph_host_ns: int = 5_000


@dataclass
class SimulatedRuns:
    """A session on the simulated GPU; ``graphs`` says whether it captures any."""

    gpu: SimulatedGpu
    times: Times = field(default_factory=Times)
    graphs: bool = True
    prepared: int = 0

    def prepare(self, batch: Batch, *, graph: bool) -> "SimulatedRun":
        if graph and not self.graphs:
            raise Unavailable("no graph can be captured", fix="run without")
        self.prepared += 1
        return SimulatedRun(self.gpu, self.times, batch, graph)


@dataclass
class SimulatedRun:
    """One batch."""

    gpu: SimulatedGpu
    times: Times
    batch: Batch
    graph: bool
    stream_handle: int = STREAM

    def copy_to_device(self) -> None:
        self.gpu.work(1_000, 8 * self.batch.ids_BS.size)

    def enqueue(self) -> None:
        host_ns = self.times.graph_host_ns if self.graph else self.times.host_ns
        self.gpu.work(host_ns, self.times.device_ns + self.gpu.cold * self.times.cold_ns)
        self.gpu.cold = False

    def copy_to_host(self) -> None:
        self.gpu.work(1_000, 2_000)

    def logits(self) -> NDArray[np.float32]:
        return np.zeros((len(self.batch.ids_BS), 2), np.float32)
