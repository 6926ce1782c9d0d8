"""A checkpoint's tensors as float32 arrays, checked to be the ones its encoder must have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.checkpoint import Checkpoint, read_config
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.export_shapes import expected_shapes, exportable_architecture
from spd_deploy.domain.layers import find_layers, passed_over
from spd_deploy.domain.model_config import Activation, activation_of, epsilon_of
from spd_deploy.domain.models.architecture import Architecture
from spd_deploy.domain.stored_weights import StoredTensor, StoredWeights

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierWeights:
    """Everything the graph of a classifier is made from.

    Attributes:
        tensors: every array of the checkpoint by its name there.
        activation: of the feed-forward part.
        epsilon: of the layer norms.
        max_tokens: of a row; longer ones are not read.
    """

    encoder: Encoder
    architecture: Architecture
    tensors: Mapping[str, Array]
    activation: Activation
    epsilon: float
    max_tokens: int

    def weight(self, name: str) -> Array:
        """The weight ``[N, K]`` of a linear layer, or the scale of a norm."""
        return self.tensors[f"{name}.weight"]

    def bias(self, name: str) -> Array:
        """The bias ``[N]`` of a linear layer, or the shift of a norm; zeros where it has none."""
        found = self.tensors.get(f"{name}.bias")
        return np.zeros(len(self.weight(name)), np.float32) if found is None else found

    def norm(self, name: str) -> tuple[Array, Array, float]:
        """Scale, shift and epsilon of a layer norm."""
        return self.weight(name), self.bias(name), self.epsilon

    @property
    def type_table(self) -> Array:
        """The vectors of the token types."""
        return self.weight(f"{self.encoder.base}.embeddings.token_type_embeddings")

    @property
    def token_types(self) -> int:
        """How many types of tokens the model knows; 0 where it has no table of them."""
        name = f"{self.encoder.base}.embeddings.token_type_embeddings.weight"
        wanted = self.architecture.token_types is not False and name in self.tensors
        return len(self.type_table) if wanted else 0

    def of(self, matrix: Matrix) -> Array:
        """The ``[N, K]`` weight of a prunable matrix."""
        return self.weight(matrix.name)


def read_weights(checkpoint: Checkpoint) -> ClassifierWeights:
    """Read and check the tensors of a checkpoint.

    Raises:
        BadModel: an architecture or activation that cannot be exported, or a tensor that is
            missing, has another shape or holds NaN or infinity.
    """
    encoder = checkpoint.encoder
    config = read_config(checkpoint.folder)
    architecture = exportable_architecture(encoder, config)
    tensors = _load(checkpoint)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if not any(name.startswith(_outside(encoder, architecture)) for name in tensors):
        raise BadModel(
            f"{checkpoint.folder} holds an encoder alone, without a classifier",
            got=f"no tensor {architecture.head[-1].name}.weight",
            fix="use a fine-tuned classifier, or train one with spd train",
        )
    for name, shape in expected_shapes(encoder, checkpoint.task.outputs, shapes).items():
        _refuse_tensor(checkpoint, name, shape, tensors.get(name))
    if architecture.task_types and config.get("use_task_id"):
        tensors = _without_task_types(checkpoint, tensors)
    return ClassifierWeights(
        encoder=encoder,
        architecture=architecture,
        tensors=tensors,
        activation=activation_of(encoder, config),
        epsilon=epsilon_of(encoder, config),
        max_tokens=checkpoint.max_tokens,
    )


def _outside(encoder: Encoder, architecture: Architecture) -> tuple[str, ...]:
    """The prefixes of the head's tensors, but for those of the base model's pooler."""
    names = (f"{layer.name}." for layer in architecture.head)
    return tuple(name for name in names if not name.startswith(f"{encoder.base}."))


def _refuse_tensor(
    checkpoint: Checkpoint, name: str, shape: tuple[int, ...], found: Array | None
) -> None:
    """Refuse a tensor that is missing, has another shape or holds NaN or infinity."""
    if found is None or found.shape != shape:
        raise BadModel(
            f"{checkpoint.folder} has no tensor {name} of shape {shape}",
            got="none" if found is None else f"shape {found.shape}",
            fix="use a complete classifier whose config.json is its own",
        )
    if not np.isfinite(found).all():
        raise BadModel(
            f"{name} in {checkpoint.folder} holds NaN or infinity",
            fix="use another checkpoint: the training of this one diverged",
        )


def _without_task_types(checkpoint: Checkpoint, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors with the task type that every token has, row 0, added to all token types."""
    base = f"{checkpoint.encoder.base}.embeddings"
    table, types = f"{base}.task_type_embeddings.weight", f"{base}.token_type_embeddings.weight"
    found = tensors.get(table)
    rows = 1 if found is None else len(found)
    _refuse_tensor(checkpoint, table, (rows, tensors[types].shape[1]), found)
    kept = {name: value for name, value in tensors.items() if name != table}
    return {**kept, types: tensors[types] + tensors[table][:1]}


def _load(checkpoint: Checkpoint) -> dict[str, Array]:
    """All tensors of a checkpoint but those that Transformers passes over."""
    stored = checkpoint.stored()
    layers = find_layers(stored.shapes, read_config(checkpoint.folder))
    passed = set(passed_over(stored.shapes, layers))
    return float32_tensors(stored, [name for name in stored.tensors if name not in passed])


def float32_tensors(stored: StoredWeights, names: Iterable[str]) -> dict[str, Array]:
    """The named tensors in float32, whatever they are stored in.

    Raises:
        BadModel: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    wanted = [(name, stored.tensors[name]) for name in names]
    found: dict[str, Array] = {}
    for file in stored.files:
        try:
            with safe_open(file, framework="pt") as opened:
                found |= {
                    name: _rows(opened, tensor).float().numpy()
                    for name, tensor in wanted
                    if tensor.file == file
                }
        except (OSError, SafetensorError) as err:
            raise BadModel(f"{file} is damaged", got=err, fix="copy it again") from err
    return found


def _rows(opened: Any, tensor: StoredTensor) -> Any:
    """A tensor of an opened file, or the rows of one that holds several."""
    whole = opened.get_tensor(tensor.stored_name)
    return whole if tensor.first_row is None else whole[tensor.rows]
