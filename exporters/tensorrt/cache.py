"""The timings by which TensorRT chose kernels, kept for the next build on the same kind of GPU.

A build that finds its timings in the cache takes minutes less and the same kernels as the build
they are of. They are of use to one version of TensorRT on one kind of GPU, and the file is named
after both.
"""

import re
from pathlib import Path

from spd_deploy.domain.files import cache_folder, replacing
from spd_deploy.sessions.tensorrt.engine_record import EngineHost


def cache_file(place: EngineHost) -> Path:
    """Where the timings of a place lie, in the user's cache folder.

    Raises:
        RuntimeError: the user has no home.
    """
    parts = (place.gpu, f"cc{place.compute_capability}", f"tensorrt-{place.tensorrt}")
    name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
    return cache_folder() / "timings" / f"{name}.cache"


def read_cache(file: Path) -> bytes:
    """The timings; nothing where there are none yet, or none that can be read.

    What is lost then is time: the build times kernels anew.
    """
    try:
        return file.read_bytes()
    except OSError:
        return b""


def write_cache(file: Path, timings: bytes) -> None:
    """Keep timings for the next build.

    Raises:
        NotWritten: the folder cannot be written.
    """
    with replacing(file) as draft:
        draft.write_bytes(timings)
