"""The parts of an architecture: the names of its tensors, its embeddings and its head."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from spd_deploy.domain.models.disentangled import DisentangledAttention
from spd_deploy.domain.models.layer_attention import LayerAttention
from spd_deploy.domain.models.relative_positions import RelativePositions

Role = Literal["query", "key", "value", "attention_output", "intermediate", "gate", "output"]

ROLES: tuple[Role, ...] = get_args(Role)
# The roles of the feed-forward part, whose units are neurons; those of the others are heads.
FEED_FORWARD: frozenset[Role] = frozenset(("intermediate", "gate", "output"))
# The roles whose inputs are heads or neurons, and whose outputs are added to the hidden state.
READERS: frozenset[Role] = frozenset(("attention_output", "output"))

# The tables of word embeddings and absolute positions in most models, as seen from the base model.
WORDS, POSITIONS = "embeddings.word_embeddings", "embeddings.position_embeddings"

# What the head reads: the first token of a text, or the mean over its tokens.
Pooling = Literal["first", "mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """The names that a family of models has for the modules of a layer.

    Attributes:
        attention_norm: the norm after the attention part, or before it where ``norm_first``.
        gate: the matrix whose outputs multiply the activated ones of ``intermediate``; None where
            the feed-forward part has no gates.
        output_norm: the norm after the feed-forward part, or before it where ``norm_first``.
        norm_first: whether a norm is applied to what a part reads, not to its sum with the
            residual.
        norm_in_first: whether the first layer has its attention norm.
        biases: whether every module has a bias; otherwise it may have one.
    """

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str
    gate: str | None = None
    norm_first: bool = False
    norm_in_first: bool = True
    biases: bool = True

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of a layer's matrices, in the order in which they are computed."""
        return tuple(role for role in ROLES if role != "gate" or self.gate is not None)

    def of(self, role: Role) -> str:
        """The module of a role, as seen from its layer."""
        return str(getattr(self, role))

    def norms(self, layer: int) -> tuple[str, ...]:
        """The norms of a layer, as seen from it."""
        first = layer > 0 or self.norm_in_first
        return (self.attention_norm, self.output_norm) if first else (self.output_norm,)

    def modules(self, layer: int) -> tuple[str, ...]:
        """The modules of a layer that have tensors, as seen from it."""
        return (*map(self.of, self.roles), *self.norms(layer))

    def tensors(self, layer: int) -> Iterator[str]:
        """Every tensor that a layer must have, as seen from it."""
        for module in self.modules(layer):
            yield f"{module}.weight"
            if self.biases:
                yield f"{module}.bias"

    def known_tensors(self, layer: int) -> Iterator[str]:
        """Every tensor that a layer may have, as seen from it."""
        for module in self.modules(layer):
            yield from (f"{module}.weight", f"{module}.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLayer:
    """A linear layer of the head, and the operator and the norm that follow it."""

    name: str
    activation: Literal["Tanh", "Relu", "Gelu"] | None = None
    norm: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Names of tensors, a way to feed encoder layers, and to classify by what they give.

    Attributes:
        base: the base model's name in a classifier's tensors.
        model_types: ``model_type`` of ``config.json``, of all models that are stored so.
        naming: what the modules of a layer are called.
        head: what the pooled token goes through; the last layer gives the logits.
        layers: the module that holds the layers, as seen from the base model.
        words: the table of word embeddings, as seen from the base model.
        positions: the table of absolute positions; None where positions are not embedded.
        embedding_norm: the norm of the embeddings.
        final_norm: the norm after the last layer; None where there is none.
        stacked: modules of a layer that hold the rows of several matrices, one below the other, and
            what the matrices are called here.
        token_types: whether there is a table of token types; None where some models have one.
        projected: whether embeddings may be narrower than the encoder, and projected to its width.
        task_types: whether ``use_task_id`` of ``config.json`` adds a table of task types, of which
            a classifier reads row 0 for every token.
        counts_from_padding: whether positions are counted from behind the padding token's id, as in
            RoBERTa; otherwise the first token has position 0.
        activation_field: what ``config.json`` calls the activation of the feed-forward part.
        epsilon: what layer norms add to the variance; None where ``config.json`` says it.
        epsilon_field: what ``config.json`` calls it.
        default_epsilon: what Transformers takes where ``config.json`` is silent.
        attention_of: what each of so many layers attends to, by ``config.json``; None where all
            attend to the whole text and positions are embedded.
        disentangled_of: what positions add to attention scores, by ``config.json``; None where
            attention is not disentangled.
        pooling_of: what the head reads, by ``config.json``; None where it is the first token.
        unhandled: why a model with this ``config.json`` is not handled, or None; where this itself
            is None the rules of BERT hold, that there is no such thing as a gate or a window.
        relative_positions: biases of attention scores by relative position; None where there are
            none.
        fixed: fields of ``config.json`` that Transformers' code does not read, or not throughout,
            and the one value that it computes with.
    """

    base: str
    model_types: tuple[str, ...]
    naming: Naming
    head: tuple[HeadLayer, ...]
    layers: str = "encoder.layer"
    words: str = WORDS
    positions: str | None = POSITIONS
    embedding_norm: str = "embeddings.LayerNorm"
    final_norm: str | None = None
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    token_types: bool | None = True
    projected: bool = False
    task_types: bool = False
    counts_from_padding: bool = False
    activation_field: str = "hidden_act"
    epsilon: float | None = None
    epsilon_field: str = "layer_norm_eps"
    default_epsilon: float = 1e-12
    attention_of: Callable[[Mapping[str, Any], int], tuple[LayerAttention, ...]] | None = None
    disentangled_of: Callable[[Mapping[str, Any]], DisentangledAttention] | None = None
    pooling_of: Callable[[Mapping[str, Any]], Pooling] | None = None
    unhandled: Callable[[Mapping[str, Any]], str | None] | None = None
    relative_positions: RelativePositions | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
