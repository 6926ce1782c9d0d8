"""Reads the GPU's state before, during and after a run, from a thread of its own.

A value that the driver does not tell is None. An error here does not stop a measurement.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from spd_deploy.domain.nvidia import Card, GpuState, Look, look

EVERY_S = 0.5

Looker = Callable[[float], Look | None]
"""Reads the state once; takes the seconds since the first reading."""


def looker_of(uuid: str | None) -> Looker:
    """Reads the GPU of this id (``domain.nvidia.look``)."""
    return lambda at_s: look(uuid, at_s=at_s)


class CardWatch:
    """The card and its states; ``after`` is set when the watching ends."""

    def __init__(self, before: Look | None) -> None:
        self.card: Card | None = before.card if before else None
        self.before: GpuState | None = before.state if before else None
        self.during: list[GpuState] = []
        self.after: GpuState | None = None


@contextmanager
def watching(once: Looker, *, every_s: float = EVERY_S) -> Iterator[CardWatch]:
    """Read the state of a GPU until the context ends, at least once."""
    begun = perf_counter()
    watch = CardWatch(once(0.0))
    over = threading.Event()

    def keep_looking() -> None:
        """Read the state until the context is over."""
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
