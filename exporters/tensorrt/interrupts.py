"""Ctrl-C during a build, which TensorRT would lose.

While TensorRT works, Python runs only where TensorRT calls it, for a line of the log or a step of
its progress, and an exception there is swallowed by the C++ around it. So for that time a signal
sets a flag, which is looked at where TensorRT asks whether to go on, and afterwards.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """Whether someone asked to stop."""

    asked: bool = False


@contextlib.contextmanager
def held_back() -> Iterator[Stop]:
    """Note Ctrl-C instead of raising, and raise it at the end.

    Outside the main thread, or where the process ignores Ctrl-C, nothing is changed.

    Raises:
        KeyboardInterrupt: at the end of the block, if it was asked for within.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.asked = True

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
    if stop.asked:
        raise KeyboardInterrupt
