"""Turns the out-of-memory errors of all GPU libraries into one error of ours."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from spd_deploy.domain.errors import Unavailable

# Parts of the messages of TensorRT, ONNX Runtime, PyTorch and CUDA's libraries.
_SIGNS = (
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "could not allocate",
    "failed to allocate",
    "alloc_failed",
)


def says_no_room(text: str) -> bool:
    """Whether a library's message is about memory that it could not allocate."""
    return any(sign in text.lower() for sign in _SIGNS)


@contextmanager
def fitting(what: object, device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Load ``what`` onto a GPU inside the block; on the CPU errors pass unchanged.

    Raises:
        Unavailable: it does not fit into the GPU's memory, or the GPU failed meanwhile.
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
                fix="stop other processes on the GPU, or use --device cpu",
            ) from err
        if isinstance(err, _of_torch("AcceleratorError")):
            raise Unavailable(
                f"the GPU failed while {what} was loaded",
                got=err,
                fix="run `spd doctor`, or use --device cpu",
            ) from err
        raise


def is_fault(err: BaseException) -> bool:
    """Whether an error is an out-of-memory or a GPU failure, not an unsupported operation."""
    kinds = [_of_torch(name) for name in ("OutOfMemoryError", "AcceleratorError")]
    return says_no_room(str(err)) or any(isinstance(err, kind) for kind in kinds)


def _of_torch(name: str) -> type[BaseException] | tuple[()]:
    """A PyTorch error class by name; empty where PyTorch is not imported or older (2.8)."""
    found: type[BaseException] | tuple[()] = getattr(sys.modules.get("torch"), name, ())
    return found
