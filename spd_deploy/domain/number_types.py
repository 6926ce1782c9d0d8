"""The precisions that artefacts are stored in, and the type and size of a number in each.

NumPy, PyTorch, ONNX and Transformers call a type by the same name, such as ``float16``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FloatType = Literal["fp32", "fp16", "bf16"]
PrecisionName = Literal[FloatType, "int8"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberType:
    """A type of numbers.

    Attributes:
        dtype: the libraries' name of it.
        bytes: size of a number.
        quantised: whether it needs a scale, so that a task's texts are needed to calibrate ranges
            and its score says how much is lost.
    """

    dtype: str
    bytes: int
    quantised: bool = False


NUMBER_TYPES: Mapping[str, NumberType] = {
    "fp32": NumberType(dtype="float32", bytes=4),
    "fp16": NumberType(dtype="float16", bytes=2),
    "bf16": NumberType(dtype="bfloat16", bytes=2),
    "int8": NumberType(dtype="int8", bytes=1, quantised=True),
}


def is_quantised(precision: str) -> bool:
    """Whether artefacts in this precision are calibrated, and judged by the task's score."""
    return precision in NUMBER_TYPES and NUMBER_TYPES[precision].quantised


def dtype_name(precision: str) -> str:
    """The library's name of a precision's type; of mixed ones, such as ``int8+bf16``, their own."""
    known = NUMBER_TYPES.get(precision)
    return precision if known is None else known.dtype


def precision_of_dtype(dtype: str) -> str:
    """The precision whose numbers have the type that libraries call ``dtype``.

    Raises:
        KeyError: no artefact is stored in it.
    """
    return {one.dtype: name for name, one in NUMBER_TYPES.items()}[dtype]
