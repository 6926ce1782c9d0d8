"""A lock that gives a sweep its output folder alone."""

import contextlib
import fcntl
from collections.abc import Iterable, Iterator
from pathlib import Path

from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import not_written, refuse_unwritable
from spd_train.sweep.child import is_running

LOCK_FILE = "sweep.lock"


@contextlib.contextmanager
def lock_folder(output: Path, logs: Iterable[Path]) -> Iterator[None]:
    """Lock ``output`` for this process, which no run of a killed sweep may use any more.

    Args:
        output: the folder of the sweep.
        logs: of its runs.

    Raises:
        NotWritten: another sweep, or runs of a killed one, use the folder, or it cannot be written.
    """
    refuse_unwritable(output, output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / LOCK_FILE).open("ab")
    except OSError as err:
        raise not_written(output, err) from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise _in_use(output) from err
        except OSError as err:
            raise not_written(output / LOCK_FILE, err) from err
        if any(map(is_running, logs)):
            raise _in_use(output)
        yield


def _in_use(output: Path) -> NotWritten:
    """The error for a folder that is not free."""
    return NotWritten(
        f"another sweep, or a run of a killed sweep, uses {output}",
        fix="wait for it, stop it, or choose another --output; --table-only works meanwhile",
    )
