"""The processes of the Ray that a test has started."""

import contextlib
import signal
import time
from types import ModuleType

import psutil

_FOUND_WITHIN_S = 20.0
_FREE_WITHIN_S = 20.0


def kill_workers(name: str) -> None:
    """SIGKILL for each process that runs such a task or holds such an actor, at least one.

    Ray writes the names into the command lines of its processes, which are empty for moments.

    Raises:
        AssertionError: there is none.
    """
    deadline = time.monotonic() + _FOUND_WITHIN_S
    while not (found := _workers(name)):
        assert time.monotonic() < deadline, f"no process runs {name}"
        time.sleep(0.01)
    for one in found:
        with contextlib.suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)


def wait_until_free(ray: ModuleType) -> None:
    """Wait until no task and no actor holds a core of the cluster.

    Raises:
        AssertionError: one is still held.
    """
    deadline = time.monotonic() + _FREE_WITHIN_S
    while (free := ray.available_resources().get("CPU")) != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, f"free cores: {free}"
        time.sleep(0.05)


def _workers(name: str) -> list[psutil.Process]:
    """The descendants of this process with such a command line."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(one.cmdline()).startswith(f"ray::{name}"):
                found.append(one)
    return found
