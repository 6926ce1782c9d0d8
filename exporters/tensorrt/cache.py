"""The timing cache: kernel timings of TensorRT, saved for the next build on the same kind of GPU.

A build that starts from saved timings is minutes faster and chooses the same kernels. Timings fit
one version of TensorRT on one kind of GPU, so the file is named after both.
"""

import re
from pathlib import Path

from spd_deploy.domain.files import cache_folder, replacing
from spd_deploy.sessions.tensorrt.engine_record import EngineHost


def cache_file(host: EngineHost) -> Path:
    """The file of a GPU's timings, in the user's cache folder.

    Raises:
        RuntimeError: the user has no home folder.
    """
    parts = (host.gpu, f"cc{host.compute_capability}", f"tensorrt-{host.tensorrt}")
    name = "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)
    return cache_folder() / "timings" / f"{name}.cache"


def read_cache(file: Path) -> bytes:
    """The saved timings; empty where there are none, or the file cannot be read.

    Without them the build times all kernels itself, which takes minutes longer.
    """
    try:
        return file.read_bytes()
    except OSError:
        return b""


def write_cache(file: Path, timings: bytes) -> None:
    """Save timings for the next build.

    Raises:
        NotWritten: the folder cannot be written.
    """
    with replacing(file) as draft:
        draft.write_bytes(timings)
