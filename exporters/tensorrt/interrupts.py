"""Ctrl-C during a build, which TensorRT would swallow.

While TensorRT builds, Python code runs only in its callbacks, for a line of the log or a step of
the progress. The C++ code around them swallows exceptions. So during a build the signal sets a
flag, which the progress monitor reads, and ``KeyboardInterrupt`` is raised when the build ends.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """Whether Ctrl-C was pressed."""

    requested: bool = False


@contextlib.contextmanager
def held_back() -> Iterator[Stop]:
    """Note Ctrl-C instead of raising, and raise it at the end.

    Outside the main thread, or where the process ignores Ctrl-C, nothing is changed.

    Raises:
        KeyboardInterrupt: at the end of the block, if Ctrl-C was pressed in it.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.requested = True

    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    held = in_main and before not in (None, signal.SIG_IGN)
    if held:
        signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        if held:
            signal.signal(signal.SIGINT, before)
    if stop.requested:
        raise KeyboardInterrupt
