"""DeBERTa-v2, and DeBERTa-v3 and mDeBERTa-v3, which are stored as DeBERTa-v2 (He et al. 2021).

The layers are BERT's but for their attention, which is disentangled. Positions are not embedded.
The head has a dense layer of its own, outside of the base model.
"""

from collections.abc import Mapping
from typing import Any

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.models.architecture import Architecture, HeadLayer, Naming
from spd_deploy.domain.models.disentangled import DisentangledAttention

_TERMS = {"c2p", "p2c"}
# What Transformers takes where config.json is silent.
_POSITIONS = 512


def disentangled_of(config: Mapping[str, Any]) -> DisentangledAttention:
    """The terms of the scores and the rows of the table.

    Raises:
        BadModel: fields that cannot be read.
    """
    terms = _terms(config)
    longest = _whole(config, "max_relative_positions", -1)
    if longest < 1:
        longest = _whole(config, "max_position_embeddings", _POSITIONS)
    buckets = _whole(config, "position_buckets", -1)
    if buckets > 0 and not 2 <= buckets // 2 < longest - 1:
        raise _bad("position_buckets", buckets, f"4 or more, and less than {2 * (longest - 1)}")
    if longest < 1:
        raise _bad("max_position_embeddings", longest, "1 or more")
    norms = str(config.get("norm_rel_ebd", "none")).lower().split("|")
    return DisentangledAttention(
        content_to_position="c2p" in terms,
        position_to_content="p2c" in terms,
        span=buckets if buckets > 0 else longest,
        max_distance=longest,
        in_buckets=buckets > 0,
        normed="layer_norm" in [norm.strip() for norm in norms],
    )


def unhandled(config: Mapping[str, Any]) -> str | None:
    """Why a model is not handled: parts that some DeBERTa-v2 have, such as a convolution."""
    hidden = config.get("hidden_size")
    if not config.get("relative_attention", False):
        return "its relative_attention is not true, so that its scores know no positions"
    if not _terms(config) & _TERMS:
        return "its pos_att_type has neither c2p nor p2c"
    if not config.get("share_att_key", False):
        return "its share_att_key is not true: relative positions have projections of their own"
    if (size := config.get("conv_kernel_size", 0)) and size > 0:
        return f"it convolves after its first layer, conv_kernel_size {size} in config.json"
    if config.get("position_biased_input", True):
        return "its position_biased_input is not false: it also embeds absolute positions"
    for name, expected in (
        ("embedding_size", hidden),
        ("pooler_hidden_size", hidden),
        ("pooler_hidden_act", "gelu"),
    ):
        if config.get(name, expected) != expected:
            return f"its {name} is {config[name]!r}, not {expected!r}"
    return None


def _terms(config: Mapping[str, Any]) -> set[str]:
    """The terms of ``pos_att_type``: a list, or text with bars between them."""
    found = config.get("pos_att_type") or ()
    parts = found.lower().split("|") if isinstance(found, str) else found
    if not isinstance(parts, list | tuple):
        raise _bad("pos_att_type", found, "a list such as ['p2c', 'c2p']")
    return {str(part).strip() for part in parts}


def _whole(config: Mapping[str, Any], name: str, default: int) -> int:
    """A field that holds a whole number."""
    found = config.get(name, default)
    if not isinstance(found, int) or isinstance(found, bool):
        raise _bad(name, found, "a whole number")
    return found


def _bad(name: str, found: object, expected: str) -> BadModel:
    """The error for a field of ``config.json`` that cannot be read."""
    return BadModel(
        f"{name} in config.json is not handled",
        got=f"{found!r}, expected {expected}",
        fix="use the model's original config.json",
    )


DEBERTA = Architecture(
    base="deberta",
    model_types=("deberta-v2",),
    naming=Naming(
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        intermediate="intermediate.dense",
        output="output.dense",
        output_norm="output.LayerNorm",
    ),
    head=(HeadLayer(name="pooler.dense", activation="Gelu"), HeadLayer(name="classifier")),
    positions=None,
    token_types=None,
    default_epsilon=1e-7,
    disentangled_of=disentangled_of,
    unhandled=unhandled,
)
