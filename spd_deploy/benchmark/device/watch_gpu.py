"""Reads the GPU's state during and after a run, from a thread of its own.

A value that the driver does not tell is None. An error here does not stop a measurement.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from spd_deploy.domain.nvidia import GpuProperties, GpuReading, GpuState, read_gpu

EVERY_S = 0.5

StateReader = Callable[[float], GpuReading | None]
"""Reads the state once; takes the seconds since the first reading."""


def state_reader(uuid: str | None) -> StateReader:
    """Reads the GPU of this id (``domain.nvidia.read_gpu``)."""
    return lambda at_s: read_gpu(uuid, at_s=at_s)


class GpuStates:
    """A GPU and its states during a run; ``after`` is set when the watching ends."""

    def __init__(self, properties: GpuProperties | None) -> None:
        self.properties = properties
        self.during: list[GpuState] = []
        self.after: GpuState | None = None


@contextmanager
def watching(once: StateReader, *, every_s: float = EVERY_S) -> Iterator[GpuStates]:
    """Read the state of a GPU until the context ends, at least once."""
    begun = perf_counter()
    first = once(0.0)
    watch = GpuStates(first.properties if first else None)
    over = threading.Event()

    def keep_reading() -> None:
        """Read the state until the context is over."""
        while True:
            if (seen := once(perf_counter() - begun)) is not None:
                watch.during.append(seen.state)
            if over.wait(every_s):
                return

    thread = threading.Thread(target=keep_reading, name="spd-gpu-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        last = once(perf_counter() - begun)
        watch.after = last.state if last else None
