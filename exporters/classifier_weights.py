"""A checkpoint's tensors as float32 arrays, checked to be the ones its encoder must have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.architectures import Architecture, architecture_of, expected_shapes
from spd_deploy.domain.checkpoint import Checkpoint, read_config
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadModel

Array = NDArray[np.float32]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierWeights:
    """Everything the graph of a classifier is made from.

    Attributes:
        tensors: every array of the checkpoint by its name there.
        activation: of the feed-forward part, one of ``ACTIVATIONS``.
        epsilon: of the layer norms.
    """

    encoder: Encoder
    architecture: Architecture
    tensors: Mapping[str, Array]
    activation: str
    epsilon: float

    def weight(self, name: str) -> Array:
        """``name.weight``."""
        return self.tensors[f"{name}.weight"]

    def bias(self, name: str) -> Array:
        """``name.bias``."""
        return self.tensors[f"{name}.bias"]

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
        return len(self.type_table) if self.architecture.token_types else 0

    def of(self, matrix: Matrix) -> Array:
        """The ``[N, K]`` weight of a prunable matrix."""
        return self.weight(matrix.name)


def read_weights(checkpoint: Checkpoint) -> ClassifierWeights:
    """Read and check the tensors of a checkpoint.

    Raises:
        BadModel: an architecture or activation that cannot be exported, or a tensor that is
            missing, has another shape or holds NaN or infinity.
    """
    config = read_config(checkpoint.folder)
    architecture = architecture_of(checkpoint.encoder)
    activation = activation_of(config)
    tensors = _load(checkpoint)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    expected = expected_shapes(checkpoint.encoder, checkpoint.task.outputs, shapes)
    for name, shape in expected.items():
        found = tensors.get(name)
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
    return ClassifierWeights(
        encoder=checkpoint.encoder,
        architecture=architecture,
        tensors=tensors,
        activation=activation,
        epsilon=epsilon_of(config),
    )


def activation_of(config: Mapping[str, Any]) -> str:
    """The activation of the feed-forward part that ``config.json`` names.

    Raises:
        BadModel: one that cannot be exported.
    """
    activation = str(config.get("hidden_act", config.get("activation", "gelu")))
    if activation not in ACTIVATIONS:
        raise BadModel(
            "an activation that cannot be exported",
            got=activation,
            fix=f"use a model with one of {', '.join(ACTIVATIONS)}",
        )
    return activation


def epsilon_of(config: Mapping[str, Any]) -> float:
    """What the layer norms add to the variance."""
    return float(config.get("layer_norm_eps", 1e-12))


def _load(checkpoint: Checkpoint) -> dict[str, Array]:
    """All tensors in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(checkpoint.weights)
    except (OSError, SafetensorError) as err:
        raise BadModel(f"{checkpoint.weights} is damaged", got=err, fix="copy it again") from err
    return {name: value.float().numpy() for name, value in tensors.items()}
