"""Encoder layers, found in the names and shapes of a model's tensors.

A layer is known by what it holds, not by what its model is called: six linear layers and two layer
norms, each with its bias. A tensor more (a convolution, an adapter, attention to other states) or a
tensor less is another kind of layer, which nothing here could prune or export rightly. So every
model that stores its layers as BERT or DistilBERT do is found without being named.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spd_deploy.domain.errors import BadModel

Role = Literal["query", "key", "value", "attention_output", "intermediate", "output"]
Shapes = Mapping[str, tuple[int, ...]]

ROLES: tuple[Role, ...] = (
    "query",
    "key",
    "value",
    "attention_output",
    "intermediate",
    "output",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """What a family of models calls the modules of a layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str

    def of(self, role: Role) -> str:
        """The module of a role, as seen from its layer."""
        return str(getattr(self, role))

    def tensors(self) -> Iterator[str]:
        """Every tensor of a layer, as seen from it."""
        for module in (*map(self.of, ROLES), self.attention_norm, self.output_norm):
            yield from (f"{module}.weight", f"{module}.bias")


BERT = Naming(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)
DISTILBERT = Naming(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)

# What tensors tell of models whose layers are of another kind.
_SIGNS = (
    ("layer_groups.", "its layers share one set of weights"),
    (".c_attn.", "it is a decoder, in which a token sees only those before it"),
    ("relative_attention_bias", "its positions are relative"),
    ("rel_embeddings", "its positions are relative"),
    ("qkv", "query, key and value are one matrix"),
    ("in_proj", "query, key and value are one matrix"),
    ("conv", "it convolves"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """``count`` layers ``prefix.0``, ``prefix.1``, ... with modules named as ``naming`` says."""

    prefix: str
    naming: Naming
    count: int


def find_layers(shapes: Shapes, config: Mapping[str, Any]) -> Layers:
    """The one stack of layers among a model's tensors.

    Raises:
        BadModel: the model is of another kind, has no such layers, several stacks, or a gap.
    """
    if (reason := _other_kind(config)) is not None:
        raise refusal(reason, config)
    stacks: dict[tuple[str, Naming], set[int]] = {}
    for naming in (BERT, DISTILBERT):
        query = re.compile(rf"(.+)\.(\d+)\.{re.escape(naming.query)}\.weight")
        for match in filter(None, map(query.fullmatch, shapes)):
            stacks.setdefault((match[1], naming), set()).add(int(match[2]))
    if len(stacks) > 1:
        raise refusal(f"it has {len(stacks)} stacks of layers, not one", config)
    for (prefix, naming), numbers in stacks.items():
        if missing := set(range(max(numbers) + 1)) - numbers:
            raise refusal(f"its tensors lack layer {min(missing)} of {prefix}", config)
        return Layers(prefix=prefix, naming=naming, count=len(numbers))
    signs = (reason for sign, reason in _SIGNS if any(sign in name.lower() for name in shapes))
    raise refusal(next(signs, "none of its tensors is an encoder layer's query matrix"), config)


def refuse_other_tensors(shapes: Shapes, layers: Layers, config: Mapping[str, Any]) -> None:
    """Every layer must hold the tensors that its naming says, and no others.

    Raises:
        BadModel: a layer lacks a tensor or has one too many, which is named.
    """
    expected = set(layers.naming.tensors())
    for layer in range(layers.count):
        prefix = f"{layers.prefix}.{layer}."
        found = {name.removeprefix(prefix) for name in shapes if name.startswith(prefix)}
        if lacking := expected - found:
            raise refusal(f"its layer {layer} has no {min(lacking)}", config)
        if others := found - expected:
            raise refusal(f"its layer {layer} holds {min(others)}, as no BERT's does", config)


def refusal(reason: str, config: Mapping[str, Any]) -> BadModel:
    """The error for a model that is not handled, with the reason."""
    classes = config.get("architectures") or [f"a model of type {config.get('model_type')!r}"]
    return BadModel(
        f"not an encoder that can be made sparse: {reason}",
        got=classes[0],
        fix="use BERT, MiniLM, RoBERTa, DistilBERT, ELECTRA, or a model built like one of them",
    )


def _other_kind(config: Mapping[str, Any]) -> str | None:
    """What ``config.json`` tells that tensors do not: attention and positions of another kind."""
    position = config.get("position_embedding_type") or "absolute"
    attention = config.get("attention_type") or "original_full"
    if config.get("is_encoder_decoder"):
        return "it is an encoder and a decoder"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it is a decoder, in which a token sees only those before it"
    if position != "absolute":
        return f"its positions are of type {position}, not absolute"
    if config.get("relative_attention"):
        return "its positions are relative"
    if any("rope" in key and value for key, value in config.items()):
        return "its positions are rotary"
    if attention != "original_full":
        return f"its attention is of type {attention}, not full"
    return None
