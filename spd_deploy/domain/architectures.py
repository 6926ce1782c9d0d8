"""What differs between the architectures that can be exported: all that is not an encoder layer.

An architecture is told by the base model's name in the tensors, since that is the code that runs
them: CamemBERT and XLM-RoBERTa are stored, and exported, as ``roberta``; MiniLM as ``bert``. The
classifier's head, whose activation no tensor shows, reads the first token alone in all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.layers import Shapes
from spd_deploy.domain.model_config import activation_of, epsilon_of

_Expected = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayer:
    """A linear layer of the head, and the operator that follows it."""

    name: str
    activation: Literal["Tanh", "Relu", "Gelu"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A way to feed encoder layers, and to classify by what they give.

    Attributes:
        head: what the first token goes through; the last layer gives the logits.
        token_types: whether there is a table of token types.
        projected: whether embeddings may be narrower than the encoder, and projected to its width.
        task_types: whether ``use_task_id`` of ``config.json`` adds a table of task types, of which
            a classifier reads row 0 for every token.
    """

    head: tuple[HeadLayer, ...]
    token_types: bool = True
    projected: bool = False
    task_types: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(
        head=(HeadLayer(name="bert.pooler.dense", activation="Tanh"), HeadLayer(name="classifier")),
    ),
    "roberta": Architecture(
        head=(
            HeadLayer(name="classifier.dense", activation="Tanh"),
            HeadLayer(name="classifier.out_proj"),
        ),
    ),
    "data2vec_text": Architecture(
        head=(
            HeadLayer(name="classifier.dense", activation="Tanh"),
            HeadLayer(name="classifier.out_proj"),
        ),
    ),
    "ernie": Architecture(
        head=(
            HeadLayer(name="ernie.pooler.dense", activation="Tanh"),
            HeadLayer(name="classifier"),
        ),
        task_types=True,
    ),
    "distilbert": Architecture(
        head=(HeadLayer(name="pre_classifier", activation="Relu"), HeadLayer(name="classifier")),
        token_types=False,
    ),
    "electra": Architecture(
        head=(
            HeadLayer(name="classifier.dense", activation="Gelu"),
            HeadLayer(name="classifier.out_proj"),
        ),
        projected=True,
    ),
}


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


def refuse_unexportable(encoder: Encoder, config: Mapping[str, Any]) -> Architecture:
    """The architecture of a model that can be exported, told by its encoder and ``config.json``.

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
    words = found.get(f"{base}.word_embeddings.weight") or (H,)
    E = words[-1] if architecture.projected else H
    shapes: _Expected = {
        f"{base}.word_embeddings.weight": (encoder.vocabulary, E),
        f"{base}.position_embeddings.weight": (encoder.first_position + encoder.positions, E),
        **_norm(f"{base}.LayerNorm", E),
    }
    if architecture.token_types:
        table = f"{base}.token_type_embeddings.weight"
        shapes[table] = ((found.get(table) or (1,))[0], E)
    if E != H:
        shapes |= _linear(f"{base}_project", H, E)
    for layer in architecture.head:
        last = layer is architecture.head[-1]
        shapes |= _linear(layer.name, outputs if last else H, H)
    return shapes | _layer_shapes(encoder)


def _layer_shapes(encoder: Encoder) -> _Expected:
    """The tensors of the encoder's layers."""
    shapes: _Expected = {}
    for matrix in encoder.matrices():
        shapes |= _linear(matrix.name, *matrix.shape)
    for layer in range(encoder.layers):
        for norm in (encoder.naming.attention_norm, encoder.naming.output_norm):
            shapes |= _norm(f"{encoder.prefix}.{layer}.{norm}", encoder.hidden)
    return shapes


def _linear(name: str, N: int, K: int) -> _Expected:
    """The tensors of a linear layer."""
    return {f"{name}.weight": (N, K), f"{name}.bias": (N,)}


def _norm(name: str, H: int) -> _Expected:
    """The tensors of a layer norm."""
    return {f"{name}.weight": (H,), f"{name}.bias": (H,)}
