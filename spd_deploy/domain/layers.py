"""Encoder layers, found in the names and shapes of a model's tensors.

A layer is known by what it holds, not by what its model is called: six linear layers and two layer
norms, each with its bias (``models.architecture.Naming`` has the exceptions). A tensor more (a
convolution, an adapter, attention to other states) or a tensor less is another kind of layer, which
nothing here could prune or export rightly. So every model that stores its layers as BERT,
DistilBERT or MPNet do is found without being named.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.models.architecture import Naming
from spd_deploy.domain.models.known import ARCHITECTURES, BASE_OF, NAMINGS

Shapes = Mapping[str, tuple[int, ...]]

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
# What tensors tell of weights that are not whole as they are stored, and how they become it.
_NOT_WHOLE = (
    (
        ".weight_orig",
        "its weights are stored apart from the masks of torch.nn.utils.prune",
        "call torch.nn.utils.prune.remove on each pruned module, and save the model again",
    ),
    (
        ".parametrizations.",
        "its weights are stored as parametrizations of torch.nn.utils.parametrize",
        "call remove_parametrizations on each module, and save the model again",
    ),
    *(
        (
            sign,
            f"its weights are stored as {what} of torch.nn.utils.weight_norm",
            "call torch.nn.utils.remove_weight_norm on each module, and save the model again",
        )
        for sign, what in ((".weight_g", "lengths"), (".weight_v", "directions"))
    ),
    *(
        (
            sign,
            "it holds adapters of PEFT, which Transformers does not load by itself",
            "merge them with PEFT's merge_and_unload(), and save the model again",
        )
        for sign in (".lora_", ".ia3_", ".oft_", ".hada_", ".vera_", ".boft_", ".base_layer.")
    ),
    (
        "adapter",
        "it holds adapters, which Transformers does not load by itself",
        "use the model without its adapters",
    ),
)
# Fields that say of some models that a token sees those near it alone.
_WINDOWS = ("sliding_window", "local_attention", "attention_window")
# Norms that Transformers' code computes, as a config may call them.
_LAYER_NORMS = ("layernorm", "post", "postnorm", "postln")


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
    refuse_other_kind(config)
    _refuse_not_whole(shapes, config)
    stacks: dict[tuple[str, Naming], set[int]] = {}
    for naming in NAMINGS:
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


def refuse_other_kind(config: Mapping[str, Any]) -> None:
    """Refuse what ``config.json`` tells of a model, and its tensors do not.

    Raises:
        BadModel: attention, positions, norms or weights of another kind.
    """
    if (reason := _other_kind(config)) is not None:
        raise refusal(reason, config)


def refuse_other_tensors(shapes: Shapes, layers: Layers, config: Mapping[str, Any]) -> None:
    """Every layer must hold the tensors that its naming says.

    Others, such as the mask buffers of ASP, are passed over where the model is of a type whose
    classifier in Transformers is known to pass over them too; :func:`passed_over` names them.

    Raises:
        BadModel: a layer lacks a tensor, or has one too many that may be part of the model.
    """
    known = config.get("model_type") in BASE_OF
    for layer in range(layers.count):
        found = _in_layer(shapes, layers, layer)
        if lacking := set(layers.naming.tensors(layer)) - found:
            raise refusal(f"its layer {layer} has no {min(lacking)}", config)
        if (others := found - set(layers.naming.known_tensors(layer))) and not known:
            raise refusal(f"its layer {layer} holds {min(others)}, as no BERT's does", config)


def passed_over(shapes: Shapes, layers: Layers) -> tuple[str, ...]:
    """The tensors in the layers that are no part of them, in order."""
    return tuple(
        f"{layers.prefix}.{layer}.{name}"
        for layer in range(layers.count)
        for name in sorted(
            _in_layer(shapes, layers, layer) - set(layers.naming.known_tensors(layer))
        )
    )


def _in_layer(shapes: Shapes, layers: Layers, layer: int) -> set[str]:
    """The tensors of one layer, as seen from it."""
    prefix = f"{layers.prefix}.{layer}."
    return {name.removeprefix(prefix) for name in shapes if name.startswith(prefix)}


def _refuse_not_whole(shapes: Shapes, config: Mapping[str, Any]) -> None:
    """Weights that are stored in parts, of which Transformers would load some or none."""
    for sign, reason, fix in _NOT_WHOLE:
        if (name := next((n for n in shapes if sign in n), None)) is not None:
            raise BadModel(f"the weights are not whole: {reason}", got=name, fix=fix)


def refusal(reason: str, config: Mapping[str, Any]) -> BadModel:
    """The error for a model that is not handled, with the reason."""
    classes = config.get("architectures") or [f"a model of type {config.get('model_type')!r}"]
    return BadModel(
        f"not an encoder that can be made sparse: {reason}",
        got=classes[0],
        fix="use BERT, MiniLM, RoBERTa, DistilBERT, ELECTRA, MPNet, ModernBERT, DeBERTa-v2, "
        "DeBERTa-v3, ERNIE, Data2VecText, or a model built like one of them",
    )


def _other_kind(config: Mapping[str, Any]) -> str | None:
    """The reason to refuse a model that ``config.json`` gives and its tensors do not."""
    if (reason := _other_than_fixed(config)) is not None:
        return reason
    if config.get("is_encoder_decoder"):
        return "it is an encoder and a decoder"
    if any(config.get(name) for name in ("is_decoder", "add_cross_attention", "is_causal")):
        return "it is a decoder, in which a token sees only those before it"
    known = ARCHITECTURES.get(BASE_OF.get(str(config.get("model_type")), ""))
    unhandled = _unlike_bert if known is None or known.unhandled is None else known.unhandled
    if (reason := unhandled(config)) is not None:
        return reason
    if (reason := _other_heads(config)) is not None:
        return reason
    if config.get("pruned_heads"):
        return "heads were pruned from its layers, of which Transformers keeps no account any more"
    if config.get("quantization_config"):
        return "its weights are quantised"
    if (code := _own_code(config)) is not None:
        return f"it comes with code of its own, {code}, which is never run"
    return None


def _unlike_bert(config: Mapping[str, Any]) -> str | None:
    """Attention, positions, feed-forward parts or norms of another kind than BERT's."""
    position = config.get("position_embedding_type") or "absolute"
    attention = config.get("attention_type") or "original_full"
    if position != "absolute":
        return f"its positions are of type {position}, not absolute"
    if config.get("relative_attention"):
        return "its positions are relative"
    if (name := _named(config, "rope", "rotary")) is not None:
        return f"its positions are rotary, {name} in config.json"
    if (name := _named(config, "alibi")) is not None:
        return f"its positions are biases of the attention, {name} in config.json"
    if (name := _named(config, "glu", "geglu", "swiglu", "gated")) is not None:
        return f"its feed-forward parts have gates, {name} in config.json"
    if attention != "original_full":
        return f"its attention is of type {attention}, not full"
    if config.get("use_sliding_window", True) and any(config.get(name) for name in _WINDOWS):
        return "its attention reaches over a window, not the whole text"
    return _other_norm(config)


def _other_than_fixed(config: Mapping[str, Any]) -> str | None:
    """Fields with which Transformers would not compute what the model was trained for."""
    known = ARCHITECTURES.get(BASE_OF.get(str(config.get("model_type")), ""))
    for name, value in ({} if known is None else known.fixed).items():
        if config.get(name, value) != value:
            return (
                f"Transformers computes a model of this type with {name} {value}, and its "
                f"config.json has {config[name]!r}"
            )
    return None


def _named(config: Mapping[str, Any], *words: str) -> str | None:
    """The first field that is set and has one of these words in its name."""
    fields = (name for name, value in config.items() if value)
    return next((name for name in fields if not set(words).isdisjoint(name.split("_"))), None)


def _other_heads(config: Mapping[str, Any]) -> str | None:
    """Heads of other sizes or numbers than those that share the hidden width evenly."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        return None
    for name, even in (
        ("num_key_value_heads", heads),
        ("head_dim", hidden // heads),
        ("attention_head_size", hidden // heads),
    ):
        if (config.get(name) or even) != even:
            return f"its heads are of another kind, {name} {config[name]!r} in config.json"
    return None


def _own_code(config: Mapping[str, Any]) -> str | None:
    """The code that a folder brings along for its model, where ``config.json`` names some."""
    named = config.get("auto_map")
    models = named.items() if isinstance(named, dict) else ()
    return next((str(code) for name, code in models if str(name).startswith("AutoModel")), None)


def _other_norm(config: Mapping[str, Any]) -> str | None:
    """Norms of another kind, or at other places, than the layer norm after each part."""
    for name, value in config.items():
        if "norm" not in name:
            continue
        plain = "".join(c for c in str(value).lower() if c.isalnum())
        if isinstance(value, str) and plain not in _LAYER_NORMS:
            return f"its norms are of another kind, {name} {value!r} in config.json"
        if value is True and ("pre" in name or "before" in name):
            return f"its norms come before each part, {name} in config.json"
    return None
