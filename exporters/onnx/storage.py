"""Writes and reads graphs and their weights: one file of weights, which all graphs share.

Small constants, such as shapes, are inside the graph. Larger ones are in ``DATA_FILE``, once for
each content, whatever names and shapes the graphs give them. So a second graph takes kilobytes, and
the 2 GB limit of protobuf files does not matter.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.classifier_graph import ClassifierGraph
from spd_deploy.domain.files import not_written
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.sessions.onnxruntime import DATA_FILE

_INLINE_BYTES = 1024
# Constants begin at multiples of this number of bytes: the alignment of the widest vector load.
_ALIGNMENT = 64
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
