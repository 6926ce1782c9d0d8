"""Ctrl-C while TensorRT builds, whose C++ swallows what Python raises in it."""

import signal
import threading
from collections.abc import Iterator

import pytest

from exporters.tensorrt.interrupts import Stop, held_back


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C raises, as in a terminal; processes in the background are started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_a_signal_is_raised_at_the_end() -> None:
    """Within the block it is noted alone; afterwards Ctrl-C is itself again."""
    before = signal.getsignal(signal.SIGINT)
    noted = False

    with pytest.raises(KeyboardInterrupt), held_back() as stop:
        signal.raise_signal(signal.SIGINT)
        noted = stop.requested

    assert noted
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("heeded")
def test_another_thread_changes_nothing() -> None:
    """Signals are the main thread's alone."""
    before, found = signal.getsignal(signal.SIGINT), list[Stop]()

    def build() -> None:
        with held_back() as stop:
            found.append(stop)

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()

    assert [stop.requested for stop in found] == [False]
    assert signal.getsignal(signal.SIGINT) is before
