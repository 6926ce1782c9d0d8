"""Sizes and types of the constants of an ONNX file, read without the package onnx.

``spd inspect`` runs where onnx is not installed. Of the file's protobuf messages this reads
``ModelProto.graph.initializer``, and of each tensor its ``dims``, ``data_type`` and ``name``:
https://protobuf.dev/programming-guides/encoding/
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from exporters.onnx.embeddings import EMBEDDINGS, WORD_EMBEDDINGS
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.number_types import precision_of_dtype

# NumPy's name and the bytes of an element, by number of ONNX's TensorProto.DataType.
_TYPES = {
    1: ("float32", 4), 2: ("uint8", 1), 3: ("int8", 1), 4: ("uint16", 2), 5: ("int16", 2),
    6: ("int32", 4), 7: ("int64", 8), 9: ("bool", 1), 10: ("float16", 2), 11: ("float64", 8),
    12: ("uint32", 4), 13: ("uint64", 8), 16: ("bfloat16", 2),
}  # fmt: skip
_PARTS = ("weight", "index", "scale")


class Field(IntEnum):
    """Numbers of fields: of ModelProto, GraphProto and TensorProto."""

    GRAPH = 7
    INITIALIZER = 5
    DIMS = 1
    DATA_TYPE = 2
    NAME = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBytes:
    """Bytes of the constants of a model.

    Attributes:
        matrices: bytes of the encoder's prunable matrices: values, positions and scales.
        embeddings: bytes of the word, position and token-type embeddings.
        rest: bytes of biases, norms and the head.
        word_embeddings: the precision that the word-embedding table is stored in.
    """

    matrices: int
    embeddings: int
    rest: int
    word_embeddings: str


def stored_bytes(model: Path, matrices: Iterable[str]) -> StoredBytes:
    """Bytes of the constants of an ONNX file, including those beside it.

    Raises:
        BadArtefact: it is no ONNX file.
    """
    constants = _constants(model)
    sizes = {name: size for name, (_, size) in constants.items()}
    of_matrices = sum(_of_matrices(sizes, matrices).values())
    embeddings = sum(size for name, size in sizes.items() if name.startswith(f"{EMBEDDINGS}."))
    return StoredBytes(
        matrices=of_matrices,
        embeddings=embeddings,
        rest=sum(sizes.values()) - of_matrices - embeddings,
        word_embeddings=precision_of_dtype(constants[WORD_EMBEDDINGS][0]),
    )


def bytes_of_matrices(model: Path, matrices: Iterable[str]) -> dict[str, int]:
    """Bytes of the constants of each matrix in a graph: values, positions and scales.

    Raises:
        BadArtefact: it is no ONNX file.
    """
    return _of_matrices({name: size for name, (_, size) in _constants(model).items()}, matrices)


def _of_matrices(sizes: dict[str, int], matrices: Iterable[str]) -> dict[str, int]:
    """The bytes of each matrix, of those of all constants."""
    return {m: sum(sizes.get(f"{m}.{part}", 0) for part in _PARTS) for m in matrices}


def _constants(model: Path) -> dict[str, tuple[str, int]]:
    """The type and the bytes of each constant of an ONNX file by name.

    Raises:
        BadArtefact: it is no ONNX file.
    """
    try:
        return dict(
            _constant(value)
            for graph in _messages(memoryview(model.read_bytes()), Field.GRAPH)
            for value in _messages(graph, Field.INITIALIZER)
        )
    except (IndexError, KeyError, UnicodeDecodeError) as err:
        raise BadArtefact(f"{model} is no ONNX file", fix="export the artefact again") from err


def _constant(tensor: memoryview) -> tuple[str, tuple[str, int]]:
    """The name, the type and the bytes of a TensorProto."""
    dims: list[int] = []
    name, kind = "", 0
    for number, value in _fields(tensor):
        match number, value:
            case (Field.DIMS, int()):
                dims.append(value)
            case (Field.DIMS, memoryview()):  # a writer may also pack them
                dims.extend(_numbers(value))
            case (Field.DATA_TYPE, int()):
                kind = value
            case (Field.NAME, memoryview()):
                name = str(value, "utf-8")
            case _:  # fields that tell no size
                pass
    numpy_name, item_bytes = _TYPES[kind]
    return name, (numpy_name, math.prod(dims) * item_bytes)


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages in a field."""
    for number, value in _fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: a number each, with a number or bytes."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        match key & 7:
            case 0:
                value, at = _number(data, at)
                yield key >> 3, value
            case 1:
                at += 8
            case 2:
                size, at = _number(data, at)
                if at + size > len(data):
                    raise IndexError(at + size)
                yield key >> 3, data[at : at + size]
                at += size
            case 5:
                at += 4
            case other:
                raise KeyError(other)


def _numbers(data: memoryview) -> Iterator[int]:
    """Numbers that stand side by side."""
    at = 0
    while at < len(data):
        value, at = _number(data, at)
        yield value


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
