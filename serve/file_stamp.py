"""Tells whether files changed since they were read."""

import os
from pathlib import Path

Stamp = tuple[tuple[int, ...] | None, ...]


def stamp_of(*paths: Path) -> Stamp:
    """A value that differs once a file or its link was changed; None where there is no file."""
    return tuple(_stamp_of(path) for path in paths)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
