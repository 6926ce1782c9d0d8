"""Tensors of the Open Inference Protocol: in JSON, and in the raw bytes of its extensions.

Raw bytes are little-endian and in row-major order; an element of BYTES is its length in four bytes
and then its bytes.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.request_body import whole
from spd_deploy.domain.errors import MalformedRequest

BYTES, FP32, INT64 = "BYTES", "FP32", "INT64"
_INTEGERS = {
    f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}")
    for sign, kind in (("", "i"), ("U", "u"))
    for bits in (8, 16, 32, 64)
}
INTEGERS = tuple(_INTEGERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A named tensor; ``values`` has its elements in row-major order, of BYTES as ``bytes``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]

    def __post_init__(self) -> None:
        """Refuse values that do not fill the shape.

        Raises:
            MalformedRequest: a dimension is negative, or the number of values is another.
        """
        if any(size < 0 for size in self.shape) or math.prod(self.shape) != len(self.values):
            raise MalformedRequest(
                f"{self.name}: the data does not have the shape",
                got=f"{len(self.values)} values for {list(self.shape)[:4]}",
                fix="send as many values as the shape has",
            )

    def rows(self) -> list[list[Any]]:
        """The elements of each index of the first dimension."""
        width = math.prod(self.shape[1:])
        return [list(self.values[i * width : (i + 1) * width]) for i in range(self.shape[0])]


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """A tensor whose data came as JSON: flat, or nested as the shape is.

    Raises:
        MalformedRequest: the datatype is not known, or a value is not of it.
    """
    _refuse_datatype(name, datatype)
    _refuse_unless(isinstance(data, list), name, "a list")
    values = _flat(data, depth=len(shape))
    if datatype == BYTES:
        _refuse_unless(all(isinstance(one, str) for one in values), name, "texts")
        values = [one.encode("utf-8", "surrogatepass") for one in values]
    else:
        values = [whole(one) for one in values]
        _refuse_unless(all(type(one) is int for one in values), name, "whole numbers")
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=values)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """A tensor whose data came as raw bytes.

    Raises:
        MalformedRequest: the datatype is not known, or the bytes do not fit it.
    """
    _refuse_datatype(name, datatype)
    if datatype == BYTES:
        values: list[Any] = list(_elements(name, raw))
    else:
        dtype = _INTEGERS[datatype]
        if len(raw) % dtype.itemsize:
            raise _not_whole(name)
        values = np.frombuffer(raw, dtype).tolist()
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=values)


def to_json(tensor: Tensor) -> dict[str, Any]:
    """A tensor as an output in JSON."""
    values = [one.decode() for one in tensor.values] if tensor.datatype == BYTES else tensor.values
    return {**_described(tensor), "data": list(values)}


def to_raw(tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """A tensor as an output whose data follows the JSON, and that data."""
    raw = raw_of(tensor)
    return {**_described(tensor), "parameters": {"binary_data_size": len(raw)}}, raw


def raw_of(tensor: Tensor) -> bytes:
    """A tensor's raw bytes."""
    if tensor.datatype == BYTES:
        return b"".join(struct.pack("<I", len(one)) + one for one in tensor.values)
    return np.asarray(tensor.values, "<f4").tobytes()


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _flat(values: list[Any], *, depth: int) -> list[Any]:
    """The elements of lists that are nested at most ``depth`` deep."""
    for _ in range(1, depth):
        values = [
            element for part in values for element in (part if isinstance(part, list) else [part])
        ]
    return values


def _elements(name: str, raw: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor."""
    place = 0
    while place < len(raw):
        if place + 4 > len(raw):
            raise _not_whole(name)
        (size,) = struct.unpack_from("<I", raw, place)
        place += 4 + size
        if place > len(raw):
            raise _not_whole(name)
        yield raw[place - size : place]


def _refuse_datatype(name: str, datatype: str) -> None:
    if datatype != BYTES and datatype not in _INTEGERS:
        raise MalformedRequest(
            f"{name}: inputs are texts or whole numbers",
            got=f"datatype {datatype.encode('ascii', 'backslashreplace').decode()[:20]}",
            fix="send BYTES for texts, or INT64 for token ids",
        )


def _refuse_unless(good: bool, name: str, what: str) -> None:
    if not good:
        raise MalformedRequest(f"{name}: the data should be {what}", fix="see its datatype")


def _not_whole(name: str) -> MalformedRequest:
    return MalformedRequest(
        f"{name}: the raw bytes end within an element", fix="send all bytes of the tensor"
    )
