"""What a GPU without room for a model says, in whichever library, made into one error of ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from spd_deploy.domain.errors import Unavailable

# What TensorRT, ONNX Runtime, PyTorch and the libraries below them say.
_SIGNS = (
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "could not allocate",
    "failed to allocate",
    "alloc_failed",
)


def says_no_room(text: str) -> bool:
    """Whether a library's words are of memory that it did not get."""
    return any(sign in text.lower() for sign in _SIGNS)


@contextmanager
def fitting(what: object, device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Loading something onto a GPU; on the CPU nothing is made of what it raises.

    Raises:
        Unavailable: the GPU has no room for it, or failed while it was loaded.
    """
    try:
        yield
    except Exception as err:
        if device == "cpu":
            raise
        if says_no_room(str(err)) or isinstance(err, _of_torch("OutOfMemoryError")):
            raise Unavailable(
                f"{what} does not fit into the GPU's memory",
                got=err,
                fix="free the GPU's memory, or use --device cpu",
            ) from err
        if isinstance(err, _of_torch("AcceleratorError")):
            raise Unavailable(
                f"the GPU failed while {what} was loaded",
                got=err,
                fix="run `spd doctor`, or use --device cpu",
            ) from err
        raise


def is_fault(err: BaseException) -> bool:
    """Whether an error is of a full or failing GPU, and not of something that it cannot do."""
    kinds = [_of_torch(name) for name in ("OutOfMemoryError", "AcceleratorError")]
    return says_no_room(str(err)) or any(isinstance(err, kind) for kind in kinds)


def _of_torch(name: str) -> type[BaseException] | tuple[()]:
    """An error of PyTorch's, where it is loaded and has it: ``AcceleratorError`` came with 2.8."""
    found: type[BaseException] | tuple[()] = getattr(sys.modules.get("torch"), name, ())
    return found
