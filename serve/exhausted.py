"""Exhausted resources of the machine: memory, file descriptors, or room on its disk.

A request that meets it is refused with 503 and may come again. It is logged once a minute, without
a traceback: writing more would not help a full disk.
"""

import errno
import resource

from spd_deploy.domain.errors import NotReady

_FILES = (errno.EMFILE, errno.ENFILE)
_MEMORY = (errno.ENOMEM, errno.ENOBUFS)
# What ONNX Runtime, PyTorch and CUDA write where an allocation failed.
_RUNTIMES_SAY = ("bad_alloc", "Failed to allocate memory", "out of memory")
_DISK = (errno.ENOSPC, errno.EDQUOT)


def exhausted_by(error: BaseException) -> str | None:
    """The resource that is exhausted by an exception; None for any other exception."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(one in str(error) for one in _RUNTIMES_SAY)
    ):
        return "memory"
    if not isinstance(error, OSError):
        return None
    found = {**dict.fromkeys(_FILES, "file descriptors"), **dict.fromkeys(_MEMORY, "memory")}
    return {**found, **dict.fromkeys(_DISK, "room on the disk")}.get(error.errno or 0)


def no_more(what: str) -> NotReady:
    """The error of a request for which the machine has none of it left."""
    return NotReady(
        f"the server has no {what} left", fix="send the request again, or to another server"
    )


def raise_open_files() -> int:
    """Raise the process's soft limit of open files to the hard one; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS has a lower limit of its own
            pass
    return soft if soft != resource.RLIM_INFINITY else 1_000_000
