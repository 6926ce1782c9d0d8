"""The child processes of a sweep: started, observed, interrupted, and killed at the end."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from spd_deploy.domain.child import child_environment
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.files import not_written
from spd_train.sweep.jobs import Job

_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedJob:
    """A job whose process has ended.

    Attributes:
        job: the job.
        code: exit status of the process.
        seconds: duration of the process.
        peak_memory_bytes: peak of its resident memory; None if the system does not report it.
    """

    job: Job
    code: int
    seconds: float
    peak_memory_bytes: int | None


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    started_s: float
    peak_memory_bytes: int | None = None


class Pool:
    """The running processes. Used as a context manager, it kills what still runs at the end."""

    def __init__(self, *, threads: int, keep_open: int) -> None:
        """Start with no process.

        Args:
            threads: CPU threads of each process.
            keep_open: file descriptor that each process inherits.
        """
        self._keep_open = keep_open
        self._environment = child_environment(OMP_NUM_THREADS=str(threads))
        self._children: dict[Job, _Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            child.process.kill()
            child.process.wait()

    def __iter__(self) -> Iterator[Job]:
        """Iterate over the running jobs."""
        return iter(tuple(self._children))

    def __len__(self) -> int:
        return len(self._children)

    def start(self, job: Job, command: Sequence[str], log: Path) -> None:
        """Start the process of ``job``; its output is appended to ``log``.

        The process gets a session of its own, so a Ctrl-C at the terminal reaches the sweep alone.
        The sweep passes it on once; a second one would end a run before its state is saved.

        Raises:
            NotWritten: the log cannot be written.
            Unavailable: the process cannot be started.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            stream = log.open("ab")
        except OSError as err:
            raise not_written(log, err) from err
        with stream:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                    pass_fds=(self._keep_open,),
                )
            except OSError as err:
                fix = "free some memory, or run fewer at the same time with --jobs"
                raise Unavailable(f"could not start {job}", got=err, fix=fix) from err
        self._children[job] = _Child(process, time.perf_counter())

    def ended(self) -> list[EndedJob]:
        """The jobs whose processes have ended since the last call."""
        ended = []
        for job, child in tuple(self._children.items()):
            child.peak_memory_bytes = _peak_of(child.process.pid) or child.peak_memory_bytes
            if (code := child.process.poll()) is None:
                continue
            del self._children[job]
            seconds = time.perf_counter() - child.started_s
            ended.append(
                EndedJob(
                    job=job, code=code, seconds=seconds, peak_memory_bytes=child.peak_memory_bytes
                )
            )
        return ended

    def interrupt(self) -> None:
        """Ask every process to save its state and end."""
        for child in self._children.values():
            child.process.send_signal(signal.SIGINT)


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
