"""The positions of non-zero weights in safetensors files, read matrix by matrix.

A floating-point number of any format is zero if all its bits but the sign are. Comparing bits needs
neither torch nor a NumPy that knows bfloat16.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.stored_weights import StoredWeights

_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
_BITS_OF = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


def nonzeros_in(
    weights: StoredWeights, matrices: Iterable[Matrix]
) -> Iterator[tuple[Matrix, NDArray[np.bool_]]]:
    """Each matrix with a mask ``[N, K]`` of its non-zeros; numbers that do not float count as such.

    The files must be sound: whoever knows the matrices has read their headers already.
    """
    opened = {file: _opened(file) for file in weights.files}
    for matrix in matrices:
        tensor = weights.tensors[matrix.weight_name]
        data, header = opened[tensor.file]
        found = _nonzero(data, header[tensor.stored_name]).reshape(-1, matrix.shape[1])
        yield matrix, found[tensor.rows]


def _opened(file: Path) -> tuple[NDArray[np.uint8], Mapping[str, Any]]:
    """The tensors' bytes, mapped into memory, and the header that says where each lies."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    return np.memmap(file, np.uint8, mode="r", offset=_LENGTH_BYTES + length), header


def _nonzero(data: NDArray[np.uint8], tensor: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which numbers of a tensor are not zero."""
    start, end = tensor["data_offsets"]
    bits = _BITS_OF.get(tensor["dtype"])
    if bits is None:
        return np.ones(tensor["shape"], np.bool_)
    found: NDArray[np.bool_] = data[start:end].view(bits) << bits(1) != 0
    return found
