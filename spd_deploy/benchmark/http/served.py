"""Servers that are measured: ``spd serve`` started for an artefact, or one that runs already."""

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from spd_deploy.domain.child import child_environment, python_module, signals_held
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.scratch import scratch_folder

_READY = re.compile(r"^ready on (\S+?),?(?: |$)", re.MULTILINE)
_READY_WITHIN_S = 600.0
_STOPPED_WITHIN_S = 40.0
_LOOK_EVERY_S = 0.05


class ServerProcess:
    """``spd serve`` in a process of its own.

    Attributes:
        url: where it answers.
        pid: of the process.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.url, self.pid = url, process.pid


@contextlib.contextmanager
def serving(folder: Path, options: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Start ``spd serve`` on a free port of this machine, and stop it with the context.

    Args:
        folder: the artefact.
        options: further words of its command line.

    Raises:
        EngineFailed: it ended before it was ready, or was not ready in ten minutes.
    """
    command = [*python_module("spd_deploy"), "serve", str(folder.resolve()), "--port", "0"]
    with scratch_folder("serve") as scratch:
        log = scratch / "log"  # a pipe that nobody reads would block the server when it is full
        process = None
        try:
            with log.open("wb") as written, signals_held():
                process = subprocess.Popen(
                    [*command, *options],
                    stdout=subprocess.DEVNULL,
                    stderr=written,
                    env=child_environment(),
                    start_new_session=True,  # Ctrl-C is for this process, which stops the server
                )
            yield ServerProcess(process, _url_when_ready(process, log))
        finally:
            if process is not None:
                _stop(process)


def _url_when_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the server answers, once it says so."""
    give_up_at = time.perf_counter() + _READY_WITHIN_S
    while time.perf_counter() < give_up_at:
        ended = process.poll() is not None
        said = log.read_text(encoding="utf-8", errors="replace")
        if found := _READY.search(said):
            return found[1]
        if ended:
            raise EngineFailed(
                "spd serve did not start",
                got=(said.strip().splitlines() or ["no output"])[-1],
                fix="start it by hand to see why",
            )
        time.sleep(_LOOK_EVERY_S)
    raise EngineFailed(
        "spd serve was not ready in time",
        got=f"{_READY_WITHIN_S:.0f} s",
        fix="start it by hand to see why",
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Let it drain; end it where that takes too long."""
    process.terminate()
    try:
        process.wait(_STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
