"""A lock that gives a sweep its output folder alone."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import not_written, refuse_unwritable

LOCK_FILE = "sweep.lock"


@contextlib.contextmanager
def lock_folder(output: Path) -> Iterator[int]:
    """Lock ``output`` for this process. Yields the lock's file descriptor.

    Child processes inherit the descriptor. If a sweep is killed, the folder stays locked until its
    runs have ended.

    Raises:
        NotWritten: another sweep, or runs of a killed one, use the folder, or it cannot be written.
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
            f"another sweep, or a run of a killed sweep, uses {output}",
            fix="wait for it, stop it, or choose another --output; --table-only works meanwhile",
        ) from err
    try:
        yield descriptor
    finally:
        os.close(descriptor)
