"""NVIDIA's driver library, loaded by its name: whether it is there, starts, and how old it is.

``ctypes`` alone: asking needs neither PyTorch nor TensorRT, and a machine without a driver answers
with a sentence. That must be asked before anything of TensorRT is made, which without a driver
hands out objects that crash the process when they are used.
"""

import ctypes
from typing import Any

from spd_deploy.domain.errors import Unavailable

_DRIVER, _MANAGEMENT = "libcuda.so.1", "libnvidia-ml.so.1"
_LONGEST = 96


def load_driver() -> Any:
    """The started driver library.

    Raises:
        Unavailable: there is none, or it does not start.
    """
    try:
        library = _opened(_DRIVER)
    except OSError as err:
        raise _no_driver(f"a library that does not load: {err}") from err
    code = int(library.cuInit(0))
    if code != 0:
        raise _no_driver(f"a library that starts with error {code}")
    return library


def driver_fault() -> str | None:
    """Why CUDA's driver library does not start; None if it does."""
    try:
        load_driver()
    except Unavailable as err:
        return err.got
    return None


def driver_version() -> str:
    """NVIDIA's version of the driver, such as ``580.95.05``; ``unknown`` where no library says."""
    try:
        library = _opened(_MANAGEMENT)
    except OSError:
        return "unknown"
    text = ctypes.create_string_buffer(_LONGEST)
    if library.nvmlInit_v2() != 0:
        return "unknown"
    try:
        code = library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(_LONGEST))
        return text.value.decode() if code == 0 else "unknown"
    finally:
        library.nvmlShutdown()


def driver_cuda() -> str | None:
    """The newest CUDA that the driver runs, such as ``13.0``; None without a driver."""
    try:
        library = _opened(_DRIVER)
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return cuda_in(number.value)


def cuda_in(number: int) -> str:
    """CUDA's version as its driver spells it in a number: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _opened(name: str) -> Any:
    """A library by its name; raises ``OSError`` where there is none."""
    return ctypes.CDLL(name)


def _no_driver(why: str) -> Unavailable:
    """The error for a machine whose driver does not start."""
    return Unavailable(
        "no NVIDIA driver works here, so nothing can run on a GPU",
        got=why,
        fix="run `spd doctor`; without a GPU an artefact runs with --runtime onnxruntime",
    )
