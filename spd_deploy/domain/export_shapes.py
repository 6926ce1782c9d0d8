"""The parts around a classifier's encoder layers: its architecture, and the tensors of both.

Each architecture is described in a file of ``domain.models``, and found by the base model's name in
the tensors (``domain.models.known``). The classifier's head, whose
activation no tensor shows, reads the first token alone, or the mean over the tokens.
"""

from collections.abc import Mapping
from typing import Any

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.layers import Shapes
from spd_deploy.domain.model_config import activation_of, epsilon_of
from spd_deploy.domain.models.architecture import Architecture
from spd_deploy.domain.models.known import ARCHITECTURES

_Expected = dict[str, tuple[int, ...]]


def architecture_of(encoder: Encoder) -> Architecture:
    """The architecture around an encoder.

    Raises:
        BadModel: none that can be exported.
    """
    known = ARCHITECTURES.get(encoder.base)
    if known is None:
        raise BadModel(
            "the embeddings and head of this model cannot be exported",
            got=f"a base model named {encoder.base!r}" if encoder.base else "an encoder alone",
            fix=f"use a classifier whose base model is {', '.join(ARCHITECTURES)}",
        )
    return known


def exportable_architecture(encoder: Encoder, config: Mapping[str, Any]) -> Architecture:
    """The architecture of a model to export, recognised by its encoder and ``config.json``.

    Raises:
        BadModel: its embeddings, head, activation or norms cannot be exported.
    """
    known = architecture_of(encoder)
    activation_of(encoder, config)
    epsilon_of(encoder, config)
    return known


def expected_shapes(encoder: Encoder, outputs: int, found: Shapes) -> _Expected:
    """The name and shape of every tensor that the graph of a classifier needs.

    Where embeddings are narrower than the encoder, and how many token types there are, no one knows
    but the tables ``found``.
    """
    architecture = architecture_of(encoder)
    H, base = encoder.hidden, f"{encoder.base}.embeddings"
    words = f"{encoder.base}.{architecture.words}.weight"
    E = (found.get(words) or (H,))[-1] if architecture.projected else H
    shapes: _Expected = {
        words: (encoder.vocabulary, E),
        **_norm(f"{encoder.base}.{architecture.embedding_norm}", E),
    }
    if architecture.positions is not None:
        table = f"{encoder.base}.{architecture.positions}.weight"
        shapes[table] = (encoder.first_position + encoder.positions, E)
    if architecture.final_norm is not None:
        shapes |= _norm(f"{encoder.base}.{architecture.final_norm}", H)
    table = f"{base}.token_type_embeddings.weight"
    if architecture.token_types or (architecture.token_types is None and table in found):
        shapes[table] = ((found.get(table) or (1,))[0], E)
    if (positions := architecture.relative_positions) is not None:
        table = f"{encoder.base}.{positions.module}.weight"
        shapes[table] = (positions.buckets, encoder.heads)
    if (disentangled := encoder.disentangled) is not None:
        shapes[f"{encoder.base}.{disentangled.table}.weight"] = (2 * disentangled.span, H)
        if disentangled.normed:
            shapes |= _norm(f"{encoder.base}.{disentangled.norm}", H)
    if E != H:
        shapes |= _linear(f"{base}_project", H, E)
    for layer in architecture.head:
        last = layer is architecture.head[-1]
        shapes |= _linear(layer.name, outputs if last else H, H)
        if layer.norm is not None:
            shapes |= _norm(layer.norm, H)
    shapes |= _layer_shapes(encoder)
    if encoder.naming.biases:
        return shapes
    always = f"{architecture.head[-1].name}.bias"
    return {
        name: shape for name, shape in shapes.items() if name == always or _is_needed(name, found)
    }


def _layer_shapes(encoder: Encoder) -> _Expected:
    """The tensors of the encoder's layers."""
    shapes: _Expected = {}
    for matrix in encoder.matrices():
        shapes |= _linear(matrix.name, *matrix.shape)
    for layer in range(encoder.layers):
        for norm in encoder.naming.norms(layer):
            shapes |= _norm(f"{encoder.prefix}.{layer}.{norm}", encoder.hidden)
    return shapes


def _is_needed(name: str, found: Shapes) -> bool:
    """Whether a tensor must be there: not a bias, where the model has none of this name."""
    return name in found or not name.endswith(".bias")


def _linear(name: str, N: int, K: int) -> _Expected:
    """The tensors of a linear layer."""
    return {f"{name}.weight": (N, K), f"{name}.bias": (N,)}


def _norm(name: str, H: int) -> _Expected:
    """The tensors of a layer norm."""
    return {f"{name}.weight": (H,), f"{name}.bias": (H,)}
