"""The tensors of a torch artefact, and the plan from which PyTorch makes a network of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.compact import Heads, kept_heads
from exporters.onnx.arithmetic.arithmetic import Array, Constants
from exporters.onnx.stored_sizes import StoredBytes
from exporters.position_tables import PositionTables
from exporters.torch.select_lowering import TorchChoice
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.files import not_written
from spd_deploy.domain.models.known import ARCHITECTURES
from spd_deploy.domain.number_types import FloatType, precision_of_dtype
from spd_deploy.kernels.weights import dtype_of
from spd_deploy.sessions.torch_network.disentangled import key_table, query_table
from spd_deploy.sessions.torch_network.network_plan import (
    HeadActivation,
    HeadPlan,
    MatrixPlan,
    NetworkPlan,
)
from spd_deploy.sessions.torch_network.position_bias import layer_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HEAD: Mapping[str | None, HeadActivation] = {
    "Tanh": "tanh",
    "Relu": "relu",
    "Gelu": "gelu",
    None: "none",
}

_WORDS = tuple(f".{known.words}.weight" for known in ARCHITECTURES.values())


def plan_of(
    weights: ClassifierWeights, chosen: Mapping[str, TorchChoice], precision: FloatType
) -> NetworkPlan:
    """The content of ``network.json``."""
    base = f"{weights.encoder.base}.embeddings"
    return NetworkPlan(
        precision=precision,
        activation=weights.activation,
        epsilon=weights.epsilon,
        token_types=weights.token_types,
        projected=f"{base}_project.weight" in weights.tensors,
        matrices=tuple(_planned(m, chosen[m.name]) for m in weights.encoder.matrices()),
        head=tuple(
            HeadPlan(name=layer.name, activation=_HEAD[layer.activation], norm=layer.norm)
            for layer in weights.architecture.head
        ),
    )


def tensors_of(
    weights: ClassifierWeights, chosen: Mapping[str, TorchChoice], precision: FloatType
) -> dict[str, "Tensor"]:
    """Every tensor of the artefact.

    Matrices and the tables of the embeddings are in ``precision``; biases, norms and the head,
    which take next to nothing, are fp32. Of biases by relative position each layer has its own
    heads'.
    """
    import torch

    dtype = dtype_of(precision)
    tensors: dict[str, Tensor] = {}
    matrices = {matrix.name: matrix for matrix in weights.encoder.matrices()}
    shared = _shared_biases(weights)
    for name, value in {**_missing_biases(weights), **weights.tensors}.items():
        owner = name.rpartition(".")[0]
        if owner in matrices or name == shared or owner in _folded(weights):
            continue
        table = value.ndim == 2 and not name.startswith(_head_prefixes(weights))
        tensors[name] = torch.from_numpy(value).to(dtype if table else torch.float32)
    for matrix in matrices.values():
        lowering = chosen[matrix.name].choice.lowering
        bias_N = weights.bias(matrix.name)[lowering.rows]
        tensors[f"{matrix.name}.bias"] = torch.from_numpy(bias_N)
        values = np.ascontiguousarray(lowering.values)
        tensors[f"{matrix.name}.weight"] = torch.from_numpy(values).to(dtype)
        if lowering.index_GU is not None:
            tensors[f"{matrix.name}.index"] = torch.from_numpy(lowering.index_GU)
        if matrix.role == "query":
            heads = kept_heads(lowering, weights.encoder.head_size)
            tensors |= _position_tables(weights, matrix.layer, heads, dtype)
        if shared is not None and matrix.role == "query":
            table_UA = weights.tensors[shared][:, list(heads)]
            tensors[layer_table(weights.encoder, matrix.layer)] = torch.from_numpy(table_UA)
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def write_tensors(file: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write the tensors as a safetensors file.

    Raises:
        NotWritten: no space, or no permission.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except (OSError, SafetensorError) as err:
        raise not_written(file, err) from err


def read_constants(file: Path) -> Constants:
    """The tensors of a file by name; floating-point ones in fp32, indices unchanged."""
    from safetensors.torch import load_file

    tensors = load_file(file)
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in tensors.items()
    }


def bytes_of_tensors(file: Path, matrices: list[str]) -> int:
    """Bytes of the values and positions of these matrices in a file."""
    from safetensors import safe_open

    wanted = {f"{name}.{part}" for name in matrices for part in ("weight", "index")}
    with safe_open(file, framework="pt") as tensors:
        return sum(tensors.get_tensor(name).nbytes for name in wanted & set(tensors.keys()))


def stored_tensor_bytes(file: Path, matrices: list[str]) -> StoredBytes:
    """Bytes of the tensors of a torch artefact, by what they belong to."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        sizes = {name: tensors.get_tensor(name).nbytes for name in tensors.keys()}  # noqa: SIM118
        (words,) = (name for name in sizes if name.endswith(_WORDS))
        kind = str(tensors.get_tensor(words).dtype).removeprefix("torch.")
    of_matrices = bytes_of_tensors(file, matrices)
    embeddings = sum(size for name, size in sizes.items() if ".embeddings." in name)
    return StoredBytes(
        matrices=of_matrices,
        embeddings=embeddings,
        rest=sum(sizes.values()) - of_matrices - embeddings,
        word_embeddings=precision_of_dtype(kind),
    )


def _planned(matrix: Matrix, chosen: TorchChoice) -> MatrixPlan:
    """The plan of one matrix."""
    lowering = chosen.choice.lowering
    return MatrixPlan(
        name=matrix.name,
        layer=matrix.layer,
        role=matrix.role,
        kind=chosen.kind,
        outputs=lowering.outputs,
        inputs=lowering.inputs,
        columns=1 if lowering.block is None else lowering.block.columns,
    )


def _missing_biases(weights: ClassifierWeights) -> dict[str, Array]:
    """Zeros for the biases that modules of the checkpoint lack: of norms, and of the head."""
    modules = {name.rpartition(".")[0]: value for name, value in weights.tensors.items()}
    return {
        f"{name}.bias": weights.bias(name)
        for name, value in modules.items()
        if value.ndim == 1 or f"{name}." in _head_prefixes(weights)
    }


def _shared_biases(weights: ClassifierWeights) -> str | None:
    """The name of the table of biases by relative position, which all layers share."""
    relative = weights.encoder.relative_positions
    return None if relative is None else f"{weights.encoder.base}.{relative.module}.weight"


def _folded(weights: ClassifierWeights) -> tuple[str, ...]:
    """The modules that the tables of each layer's positions were made of."""
    encoder = weights.encoder
    if (found := encoder.disentangled) is None:
        return ()
    return (f"{encoder.base}.{found.table}", f"{encoder.base}.{found.norm}")


def _position_tables(
    weights: ClassifierWeights, layer: int, heads: Heads, dtype: "torch.dtype"
) -> dict[str, "Tensor"]:
    """The projected positions of a layer, where attention is disentangled."""
    import torch

    if (found := PositionTables.of(weights, layer, heads)) is None:
        return {}
    named = {
        key_table(weights.encoder, layer): found.key_ADU,
        query_table(weights.encoder, layer): found.query_ADU,
    }
    return {n: torch.from_numpy(v).to(dtype) for n, v in named.items() if v is not None}


def _head_prefixes(weights: ClassifierWeights) -> tuple[str, ...]:
    """The prefixes of the names of the head's tensors."""
    return tuple(f"{layer.name}." for layer in weights.architecture.head)
