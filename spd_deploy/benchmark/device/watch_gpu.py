"""Looks at the GPU's state before, during and after a run, from a thread of its own.

What the driver does not tell is left out; nothing that goes wrong here stops a measurement.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from spd_deploy.domain.nvidia import Card, GpuState, Look, look

EVERY_S = 0.5

Looker = Callable[[float], Look | None]
"""Looks once; takes the seconds since the looking began."""


def looker_of(uuid: str | None) -> Looker:
    """Looks at the GPU of an id (``domain.nvidia.look``)."""
    return lambda at_s: look(uuid, at_s=at_s)


class GpuWatch:
    """What was seen of a card; ``after`` is there once the watching ended."""

    def __init__(self, before: Look | None) -> None:
        self.card: Card | None = before.card if before else None
        self.before: GpuState | None = before.state if before else None
        self.during: list[GpuState] = []
        self.after: GpuState | None = None


@contextmanager
def watching(once: Looker, *, every_s: float = EVERY_S) -> Iterator[GpuWatch]:
    """Look at a GPU until the context ends, at least once while it lasts."""
    begun = perf_counter()
    watch = GpuWatch(once(0.0))
    over = threading.Event()

    def keep_looking() -> None:
        """The thread's work: look, and wait unless it is over."""
        while True:
            if (seen := once(perf_counter() - begun)) is not None:
                watch.during.append(seen.state)
            if over.wait(every_s):
                return

    thread = threading.Thread(target=keep_looking, name="spd-gpu-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        last = once(perf_counter() - begun)
        watch.after = last.state if last else None
