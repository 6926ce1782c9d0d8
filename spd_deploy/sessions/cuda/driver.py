"""CUDA's driver API through NVIDIA's bindings: initialisation and error codes.

The package is ``cuda-bindings`` of cuda-python, which only TensorRT engines need. The driver is
initialised before any TensorRT object is made, because without a driver TensorRT returns objects
that crash the process when they are used.
"""

from typing import Any

from spd_deploy.domain.errors import EngineFailed, SpdError, Unavailable


def load_driver() -> Any:
    """The module ``cuda.bindings.driver``, started.

    Raises:
        Unavailable: the package is missing, there is no driver, or it does not start.
    """
    try:
        from cuda.bindings import driver
    except ImportError as err:
        raise Unavailable(
            "TensorRT engines need the package cuda-bindings, which does not import",
            got=err,
            fix="pip install 'spd-deploy[trt]'; --runtime onnxruntime needs none of it",
        ) from err
    try:
        (code,) = driver.cuInit(0)
    except RuntimeError as err:  # the bindings do not find the driver's library
        raise _no_driver(err) from err
    if code.value != 0:
        raise _no_driver(f"cuInit failed with {code.name}")
    return driver


def results(driver: Any, function: str, *arguments: Any, size: int | None = None) -> list[Any]:
    """Call a function of the driver, check its error code, and return its other results.

    Raises:
        Unavailable: the GPU's memory is full, of which ``size`` bytes were asked for; or the driver
            is too old to have the function.
        EngineFailed: any other error.
    """
    found: list[Any]
    try:
        code, *found = getattr(driver, function)(*arguments)
    except RuntimeError as err:  # the driver's library lacks the function
        raise _no_driver(err) from err
    if code.value != 0:
        raise _error(function, code, size)
    return found


def _error(function: str, code: Any, size: int | None) -> SpdError:
    """The error for an error code of the driver."""
    if code.name == "CUDA_ERROR_OUT_OF_MEMORY":
        wanted = "" if size is None else f" for {size / 1e6:.0f} MB more"
        return Unavailable(
            f"the GPU has not enough free memory{wanted}",
            got=f"{function} failed with {code.name}",
            fix="stop other processes on the GPU, or export with smaller --batch and --seq",
        )
    return EngineFailed("the GPU failed", got=f"{function}: {code.name}", fix="run `spd doctor`")


def _no_driver(why: object) -> Unavailable:
    """The error for a machine without a working NVIDIA driver."""
    return Unavailable(
        "NVIDIA's driver does not work here, so nothing can run on a GPU",
        got=why,
        fix="run `spd doctor`; without a GPU an artefact runs with --runtime onnxruntime",
    )
