"""Child processes: started, watched, stopped, and never left behind."""

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
from spd_train.sweeping.jobs import Job

_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A child that is gone; its peak of resident memory as last seen, where the system tells."""

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
    """The runs under way. As a context manager it kills what is left when it is left."""

    def __init__(self, *, threads: int, keep_open: int) -> None:
        """``threads`` are what each child computes with; ``keep_open`` is a descriptor it gets."""
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
        """The jobs under way."""
        return iter(tuple(self._children))

    def __len__(self) -> int:
        return len(self._children)

    def start(self, job: Job, command: Sequence[str], log: Path) -> None:
        """Start a child whose output is appended to ``log``.

        It gets a session of its own: a Ctrl-C at the terminal reaches the sweep alone, which
        passes it on once. A second one would make the child drop its state.
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
                fix = "free some memory, or run fewer at once with --processes"
                raise Unavailable(f"could not start {job}", got=err, fix=fix) from err
        self._children[job] = _Child(process, time.perf_counter())

    def ended(self) -> list[Ended]:
        """The children that have ended since the last call."""
        found = []
        for job, child in tuple(self._children.items()):
            child.peak_memory_bytes = _peak_of(child.process.pid) or child.peak_memory_bytes
            if (code := child.process.poll()) is None:
                continue
            del self._children[job]
            seconds = time.perf_counter() - child.started_s
            found.append(
                Ended(
                    job=job, code=code, seconds=seconds, peak_memory_bytes=child.peak_memory_bytes
                )
            )
        return found

    def interrupt(self) -> None:
        """Ask every child to save its state and end."""
        for child in self._children.values():
            child.process.send_signal(signal.SIGINT)


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return "no word"
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("spd: ") if said else "no word"


def _peak_of(pid: int) -> int | None:
    """``VmHWM`` of a process; None where the system or the process does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
