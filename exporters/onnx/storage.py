"""Writes and reads graphs and their weights: one file of weights, which all graphs share.

Small constants, such as shapes, are inside the graph. Larger ones are in ``DATA_FILE``, once for
each content, whatever names and shapes the graphs give them. So a second graph takes kilobytes, and
the 2 GB limit of protobuf files does not matter.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.embeddings import EMBEDDINGS, WORD_EMBEDDINGS
from spd_deploy.domain.files import not_written
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.onnxruntime import DATA_FILE

_INLINE_BYTES = 1024
# Constants begin at multiples of this number of bytes: the alignment of the widest vector load.
_ALIGNMENT = 64
# The names of precisions, by NumPy's names of types.
PRECISION_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "Conv", "FusedConv")


def write_graphs(folder: Path, graphs: Mapping[str, ClassifierGraph]) -> None:
    """Write each graph under its file name, and the weights of all in ``DATA_FILE``.

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
    """The constants of an ONNX file by name, including those in ``DATA_FILE``."""
    import onnx
    from onnx import numpy_helper

    stored = onnx.load(model)
    return {c.name: numpy_helper.to_array(c) for c in stored.graph.initializer}


def product_nodes(model: Path, matrices: Iterable[str]) -> dict[str, str]:
    """The name of the node that multiplies by each matrix, found from its constant onwards.

    A matrix of which nothing is stored has no node.
    """
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    products = {}
    for matrix in matrices:
        value = f"{matrix}.weight"
        while value in readers and matrix not in products:
            (node,) = readers[value]  # one node alone reads a matrix, and each value made of it
            if node.op_type in _PRODUCTS:
                products[matrix] = str(node.name)
            value = node.output[0]
    return products


def bytes_of_matrices(model: Path, matrices: Iterable[str]) -> dict[str, int]:
    """Bytes of the constants of each matrix in a graph: values, positions and scales."""
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
    """Bytes of the constants of an ONNX file, including those in ``DATA_FILE``."""
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
        word_embeddings=PRECISION_NAMES[str(kinds[WORD_EMBEDDINGS])],
    )


class _Shared:
    """The open file of weights, with the offset of each constant in it."""

    def __init__(self, data: IO[bytes]) -> None:
        self.data = data
        self.offsets: dict[tuple[str, bytes], int] = {}

    def tensor(self, name: str, value: NDArray[Any]) -> Any:
        """The tensor of a constant: inline if it is small, else a reference into the file."""
        from onnx import TensorProto, helper, numpy_helper

        if value.nbytes < _INLINE_BYTES:
            return numpy_helper.from_array(value, name)
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
            dims=value.shape,
            data_location=TensorProto.EXTERNAL,
        )
        fields = {"location": DATA_FILE, "offset": self._offset(value), "length": value.nbytes}
        for key, content in fields.items():
            tensor.external_data.add(key=key, value=str(content))
        return tensor

    def _offset(self, value: NDArray[Any]) -> int:
        """The offset of the bytes of ``value``, which are written where they are new."""
        content = np.ascontiguousarray(value).data.cast("B")
        key = (value.dtype.str, hashlib.blake2b(content).digest())
        if key not in self.offsets:
            self.data.write(bytes(-self.data.tell() % _ALIGNMENT))
            self.offsets[key] = self.data.tell()
            self.data.write(content)
        return self.offsets[key]
