"""One sweep a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import not_written, refuse_unwritable

LOCK_FILE = "sweep.lock"


@contextlib.contextmanager
def locked(output: Path) -> Iterator[int]:
    """Hold ``output`` alone; yields the lock's file descriptor.

    Child processes inherit the descriptor, so a sweep that was killed leaves the folder locked
    for as long as its runs go on.

    Raises:
        NotWritten: another sweep, or what a killed one left running, works there; or nothing can
            be written there.
    """
    refuse_unwritable(output, output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as err:
        raise not_written(output, err) from err
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(descriptor)
        raise NotWritten(
            f"another sweep, or what is left of one, works in {output}",
            fix="wait for it, stop it, or choose another --output; --table-only works meanwhile",
        ) from err
    try:
        yield descriptor
    finally:
        os.close(descriptor)
