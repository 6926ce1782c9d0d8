"""A signal that comes while a child is started is put off until the child can be ended."""

import os
import signal
import threading

import pytest

from spd_deploy.domain.child import signals_held


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_delivered_when_the_child_has_a_name(number: int) -> None:
    """Nothing is raised within the block; behind it the signal does what it did before."""
    named = False
    earlier = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), signals_held():
            os.kill(os.getpid(), number)
            named = True
        assert named
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, earlier)


def test_another_thread_holds_nothing() -> None:
    """Python lets only the main thread change handlers, so elsewhere the block is a plain one."""
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def hold() -> None:
        """Look at the handler within the block."""
        with signals_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()

    assert found == [before]
