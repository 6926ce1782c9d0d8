"""One file of weights beside the graphs that read it, each constant stored once for all of them.

A graph keeps its small constants, such as shapes, inline, so that it can be read; the others lie in
``DATA_FILE`` by content, whatever the graphs call them and however they shape them. So a second
graph costs kilobytes, and the 2 GB limit of a protobuf does not bind.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from exporters.classifier import ClassifierGraph
from exporters.embeddings import EMBEDDINGS, WORDS
from spd_deploy.domain.files import not_written
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.onnxruntime import DATA_FILE

_INLINE_BYTES = 1024
# Constants begin at multiples of this, the alignment of the widest vector load.
_ALIGNMENT = 64
# What types of numbers are called here.
SPELLED = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "Conv", "FusedConv")


def write_graphs(folder: Path, graphs: Mapping[str, ClassifierGraph]) -> None:
    """Write each graph under its file name, and the weights of all beside them.

    Raises:
        NotWritten: no space, or no permission.
    """
    import onnx

    try:
        with (folder / DATA_FILE).open("wb") as data:
            shared = _Shared(data)
            for name, classifier in graphs.items():
                model = classifier.emit().model(
                    classifier.inputs(),
                    classifier.outputs(),
                    producer=PACKAGE,
                    stored=shared.tensor,
                )
                (folder / name).write_bytes(model.SerializeToString())
    except OSError as err:
        raise not_written(folder, err) from err
    for name in graphs:
        onnx.checker.check_model(folder / name)


def read_constants(model: Path) -> dict[str, NDArray[np.generic]]:
    """The constants of an ONNX file by name, those beside the file included."""
    import onnx
    from onnx import numpy_helper

    stored = onnx.load(model)
    return {c.name: numpy_helper.to_array(c) for c in stored.graph.initializer}


def products_of(model: Path, matrices: Iterable[str]) -> dict[str, str]:
    """The node of a graph that multiplies by each matrix, followed from its constant on.

    A matrix of which nothing is stored has none.
    """
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    found = {}
    for matrix in matrices:
        value = f"{matrix}.weight"
        while value in readers and matrix not in found:
            (node,) = readers[value]  # a matrix is read by one node, and so is what becomes of it
            if node.op_type in _PRODUCTS:
                found[matrix] = str(node.name)
            value = node.output[0]
    return found


def bytes_of_matrices(model: Path, matrices: Iterable[str]) -> dict[str, int]:
    """How many bytes the constants of each matrix take in a graph: values, positions, scales."""
    import onnx
    from onnx import helper

    stored = onnx.load(model, load_external_data=False).graph.initializer
    sizes = {
        c.name: math.prod(c.dims) * helper.tensor_dtype_to_np_dtype(c.data_type).itemsize
        for c in stored
    }
    parts = ("weight", "index", "scale")
    return {m: sum(sizes.get(f"{m}.{part}", 0) for part in parts) for m in matrices}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBytes:
    """What the constants of a graph take.

    Attributes:
        matrices: of the encoder's prunable matrices: values, positions and scales.
        embeddings: of words, positions and token types.
        rest: of biases, norms and the head.
        words: the precision that the table of words is stored in.
    """

    matrices: int
    embeddings: int
    rest: int
    words: str


def stored_bytes(model: Path, matrices: Iterable[str]) -> StoredBytes:
    """What the constants of an ONNX file take, those beside the file included."""
    import onnx
    from onnx import helper

    stored = onnx.load(model, load_external_data=False).graph.initializer
    kinds = {c.name: helper.tensor_dtype_to_np_dtype(c.data_type) for c in stored}
    sizes = {c.name: math.prod(c.dims) * kinds[c.name].itemsize for c in stored}
    of_matrices = sum(bytes_of_matrices(model, matrices).values())
    embeddings = sum(size for name, size in sizes.items() if name.startswith(f"{EMBEDDINGS}."))
    return StoredBytes(
        matrices=of_matrices,
        embeddings=embeddings,
        rest=sum(sizes.values()) - of_matrices - embeddings,
        words=SPELLED[str(kinds[WORDS])],
    )


class _Shared:
    """The open file of weights, and where in it what lies."""

    def __init__(self, data: IO[bytes]) -> None:
        self.data = data
        self.offsets: dict[tuple[str, bytes], int] = {}

    def tensor(self, name: str, value: NDArray[Any]) -> Any:
        """The constant's tensor: inline if small, a reference into the file otherwise."""
        from onnx import TensorProto, helper, numpy_helper

        if value.nbytes < _INLINE_BYTES:
            return numpy_helper.from_array(value, name)
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
            dims=value.shape,
            data_location=TensorProto.EXTERNAL,
        )
        where = {"location": DATA_FILE, "offset": self._offset(value), "length": value.nbytes}
        for key, content in where.items():
            tensor.external_data.add(key=key, value=str(content))
        return tensor

    def _offset(self, value: NDArray[Any]) -> int:
        """Where the bytes of ``value`` lie; they are written if they are new."""
        content = np.ascontiguousarray(value).data.cast("B")
        key = (value.dtype.str, hashlib.blake2b(content).digest())
        if key not in self.offsets:
            self.data.write(bytes(-self.data.tell() % _ALIGNMENT))
            self.offsets[key] = self.data.tell()
            self.data.write(content)
        return self.offsets[key]
