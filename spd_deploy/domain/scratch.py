"""Temporary folders for what is measured or compared and then removed.

Where the system refuses them, the error names ``TMPDIR``: another ``--output`` would not help.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import FULL

ANOTHER_TMPDIR = "set TMPDIR to a writable folder on a disk with room"


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A temporary folder with ``purpose`` in its name, removed at the end of the block.

    Raises:
        NotWritten: the system has no place for the folder, or for a file in it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"spd-{purpose}-", ignore_cleanup_errors=True)
    except OSError as err:
        raise _refused(err.filename, err.strerror or err) from err
    with folder as name:
        try:
            yield Path(name)
        except NotWritten as err:
            if name not in err.what:
                raise
            raise _refused(name, err.got) from err
        except OSError as err:  # outputs are written by replacing(), whose errors are NotWritten
            if err.errno not in (*FULL, errno.EROFS):
                raise
            raise _refused(name, os.strerror(err.errno)) from err


def _refused(folder: object, reason: object) -> NotWritten:
    """The error for a temporary folder that the system does not let us write."""
    where = f"temporary files in {folder}" if folder else "temporary files"
    return NotWritten(f"could not write {where}", got=reason, fix=ANOTHER_TMPDIR)
