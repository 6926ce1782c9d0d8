"""A checkpoint's tensors as float32 arrays, checked to be the ones its encoder must have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.checkpoint import Checkpoint, read_config
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadModel

Array = NDArray[np.float32]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True, kw_only=True, slots=True)
class BertWeights:
    """Everything the graph of a BERT classifier is made from.

    Attributes:
        tensors: every array of the checkpoint by its name there.
        activation: of the feed-forward part, one of ``ACTIVATIONS``.
        epsilon: of the layer norms.
    """

    encoder: Encoder
    tensors: Mapping[str, Array]
    activation: str
    epsilon: float

    def weight(self, name: str) -> Array:
        """``name.weight``."""
        return self.tensors[f"{name}.weight"]

    def bias(self, name: str) -> Array:
        """``name.bias``."""
        return self.tensors[f"{name}.bias"]

    def of(self, matrix: Matrix) -> Array:
        """The ``[N, K]`` weight of a prunable matrix."""
        return self.weight(matrix.name)


def read_weights(checkpoint: Checkpoint) -> BertWeights:
    """Read and check the tensors of a checkpoint.

    Raises:
        BadModel: a tensor is missing, has another shape or holds NaN or infinity, or the
            activation is not supported.
    """
    config = read_config(checkpoint.folder)
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise BadModel(
            "an activation that cannot be exported",
            got=activation,
            fix=f"use a model with one of {', '.join(ACTIVATIONS)}",
        )
    tensors = _load(checkpoint)
    for name, shape in _expected(checkpoint.encoder, checkpoint.task.outputs, config).items():
        found = tensors.get(name)
        if found is None or found.shape != shape:
            raise BadModel(
                f"{checkpoint.folder} has no tensor {name} of shape {shape}",
                got="none" if found is None else f"shape {found.shape}",
                fix="use a complete BERT classifier whose config.json is its own",
            )
        if not np.isfinite(found).all():
            raise BadModel(
                f"{name} in {checkpoint.folder} holds NaN or infinity",
                fix="use another checkpoint: the training of this one diverged",
            )
    return BertWeights(
        encoder=checkpoint.encoder,
        tensors=tensors,
        activation=activation,
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def _load(checkpoint: Checkpoint) -> dict[str, Array]:
    """All tensors in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(checkpoint.weights)
    except (OSError, SafetensorError) as err:
        raise BadModel(f"{checkpoint.weights} is damaged", got=err, fix="copy it again") from err
    return {name: value.float().numpy() for name, value in tensors.items()}


def _expected(
    encoder: Encoder, outputs: int, config: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that the graph needs."""
    H = encoder.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (encoder.vocabulary, H),
        "bert.embeddings.position_embeddings.weight": (encoder.positions, H),
        "bert.embeddings.token_type_embeddings.weight": (int(config.get("type_vocab_size", 2)), H),
        **_linear("bert.pooler.dense", H, H),
        **_linear("classifier", outputs, H),
        **_norm("bert.embeddings.LayerNorm", H),
    }
    for matrix in encoder.matrices():
        shapes |= _linear(matrix.name, *matrix.shape)
    for layer in range(encoder.layers):
        for part in ("attention.output", "output"):
            shapes |= _norm(f"{encoder.prefix}.{layer}.{part}.LayerNorm", H)
    return shapes


def _linear(name: str, N: int, K: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a linear layer."""
    return {f"{name}.weight": (N, K), f"{name}.bias": (N,)}


def _norm(name: str, H: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer norm."""
    return {f"{name}.weight": (H,), f"{name}.bias": (H,)}
