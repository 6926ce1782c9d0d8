"""The processes of the Ray that a test has started."""

import contextlib
import signal

import psutil


def kill_workers(name: str) -> None:
    """SIGKILL for each process that runs such a task or holds such an actor.

    Raises:
        AssertionError: there is none.
    """
    found = 0
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.cmdline()[:1] == [f"ray::{name}"]:
                one.send_signal(signal.SIGKILL)
                found += 1
    assert found, f"no process runs {name}"
