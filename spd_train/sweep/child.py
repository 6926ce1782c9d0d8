"""One run as a process of its own: started, observed, interrupted, killed."""

import contextlib
import fcntl
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spd_deploy.domain.child import child_environment
from spd_deploy.domain.errors import NotWritten, Unavailable
from spd_deploy.domain.files import not_written

_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnd:
    """The outcome of a run that has ended; its folder says whether it is finished.

    Attributes:
        seconds: duration of the process.
        peak_memory_bytes: peak of its resident memory; None if the system does not report it.
        reason: why it did not finish, where its log cannot say it; else empty.
        lost: whether its machine, or the process that watched it, died.
    """

    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    reason: str = ""
    lost: bool = False


class Run(Protocol):
    """A run that was started, here or on another machine."""

    def poll(self) -> RunEnd | None:
        """The outcome of the run; None while it runs."""

    def interrupt(self) -> None:
        """Ask it to save its state and end."""

    def kill(self) -> None:
        """End it at once; nothing if it has ended."""


class Child:
    """A run as a child of this process."""

    def __init__(
        self, command: Sequence[str], log: Path, *, threads: int, apart: bool = True
    ) -> None:
        """Start it; its output is appended to ``log``.

        The process inherits the lock of its log, which so is held as long as it runs.

        Args:
            command: the command line.
            log: gets the output.
            threads: CPU threads.
            apart: give it a session of its own, so that a Ctrl-C at the terminal reaches the sweep
                alone. The sweep passes it on once; a second one would end a run before its state
                is saved.

        Raises:
            NotWritten: the log cannot be written, or an earlier process of this run writes it.
            Unavailable: the process cannot be started.
        """
        self._peak_memory_bytes: int | None = None
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            stream = log.open("ab")
        except OSError as err:
            raise not_written(log, err) from err
        with stream:
            _lock(stream.fileno(), log)
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=child_environment(OMP_NUM_THREADS=str(threads)),
                    start_new_session=apart,
                )
            except OSError as err:
                fix = "free some memory, or run fewer at the same time with --jobs"
                raise Unavailable(f"could not start the run of {log}", got=err, fix=fix) from err
        self._start_s = time.perf_counter()

    def poll(self) -> RunEnd | None:
        """The outcome of the run; None while it runs."""
        self._peak_memory_bytes = _peak_of(self._process.pid) or self._peak_memory_bytes
        if self._process.poll() is None:
            return None
        return RunEnd(
            seconds=time.perf_counter() - self._start_s, peak_memory_bytes=self._peak_memory_bytes
        )

    def interrupt(self) -> None:
        """Ask it to save its state and end.

        Not with SIGINT, which children ignore where a shell started the sweep in the background,
        and children of Ray's workers.
        """
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; nothing if it has ended."""
        self._process.kill()
        self._process.wait()


def is_running(log: Path) -> bool:
    """Whether a process of an earlier sweep still writes a run's log."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as stream:
        try:
            _lock(stream.fileno(), log)
        except NotWritten:
            return True
    return False


def last_log_line(log: Path) -> str:
    """The last line of a log that is not blank."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return "no output"
    written = [line.strip() for line in lines if line.strip()]
    return written[-1].removeprefix("spd: ") if written else "no output"


def _lock(descriptor: int, log: Path) -> None:
    """Lock a log for a run; a file system without locks has none.

    Raises:
        NotWritten: another process of this run has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise NotWritten(
            f"an earlier process of this run still writes {log}", fix="wait for it, or stop it"
        ) from err
    except OSError:
        return


def _peak_of(pid: int) -> int | None:
    """Peak resident memory (``VmHWM``) of a process in bytes; None if it is not known."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
