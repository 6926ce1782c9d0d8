"""ModernBERT, and mmBERT, which is stored as ModernBERT (Warner et al. 2024).

Norms come before each part, and biases are optional. Queries and keys are rotated by rotary
positions. Of three layers one attends to the whole text, and the others to the tokens near by, with
angles of a base of their own. Feed-forward parts have gates. Query, key and value are stored as one
matrix, and so are a gate and what it multiplies; here each has a name of its own.
"""

from collections.abc import Mapping
from typing import Any

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.models.architecture import Architecture, HeadLayer, Naming, Pooling
from spd_deploy.domain.models.layer_attention import LayerAttention

_FULL, _SLIDING = "full_attention", "sliding_attention"
_THETAS = {_FULL: ("global_rope_theta", 160_000.0), _SLIDING: ("local_rope_theta", 10_000.0)}
_POOLINGS: Mapping[str, Pooling] = {"cls": "first", "mean": "mean"}
_EVERY, _REACH = 3, 128
_ORIGINAL = "use the model's original config.json"


def layer_types(config: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    """``full_attention`` or ``sliding_attention`` of each layer.

    Raises:
        BadModel: another type, or not one for each layer.
    """
    every = config.get("global_attn_every_n_layers", _EVERY)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise _bad("global_attn_every_n_layers", every, "a whole number above 0")
    found = config.get("layer_types")
    if found is None:
        return tuple(_SLIDING if layer % every else _FULL for layer in range(layers))
    if not isinstance(found, list) or len(found) != layers or not set(found) <= set(_THETAS):
        raise _bad("layer_types", found, f"{_FULL} or {_SLIDING} for each of {layers} layers")
    return tuple(found)


def attention_of(config: Mapping[str, Any], layers: int) -> tuple[LayerAttention, ...]:
    """The base of the angles and the window of each layer.

    Raises:
        BadModel: fields that cannot be read, or positions that are scaled.
    """
    reach = config.get("local_attention", _REACH)
    if not isinstance(reach, int) or isinstance(reach, bool) or reach < 2:
        raise _bad("local_attention", reach, "a whole number of 2 or more")
    kinds = {
        _FULL: LayerAttention(theta=_theta(config, _FULL)),
        _SLIDING: LayerAttention(theta=_theta(config, _SLIDING), window=reach // 2),
    }
    return tuple(kinds[kind] for kind in layer_types(config, layers))


def pooling_of(config: Mapping[str, Any]) -> Pooling:
    """The pooling of the tokens that the head reads.

    Raises:
        BadModel: ``classifier_pooling`` is neither ``cls`` nor ``mean``.
    """
    found = config.get("classifier_pooling", "cls")
    if found not in _POOLINGS:
        raise _bad("classifier_pooling", found, " or ".join(_POOLINGS))
    return _POOLINGS[found]


def unhandled(config: Mapping[str, Any]) -> str | None:
    """Why a model is not handled: an activation of the head that is not Gelu."""
    if (found := config.get("classifier_activation", "gelu")) != "gelu":
        return f"the activation of its head is {found}, not gelu"
    return None


def _theta(config: Mapping[str, Any], kind: str) -> float:
    """The base of a kind's angles, as newer or older files spell it."""
    name, default = _THETAS[kind]
    parameters = config.get("rope_parameters")
    part = parameters.get(kind) if isinstance(parameters, dict) else None
    part = part if isinstance(part, dict) else {}
    if config.get("rope_scaling") or part.get("rope_type", "default") != "default":
        found = config.get("rope_scaling") or part["rope_type"]
        raise _bad("rope_parameters", found, "rope_type default, which scales no positions")
    theta = part.get("rope_theta", config.get(name, default))
    theta = default if theta is None else theta
    if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
        raise _bad(name, theta, "a positive number")
    return float(theta)


def _bad(name: str, found: object, expected: str) -> BadModel:
    """The error for a field of ``config.json`` that cannot be read, or is not handled."""
    return BadModel(
        f"{name} in config.json is not handled", got=f"{found!r}, expected {expected}",
        fix=_ORIGINAL,
    )  # fmt: skip


MODERNBERT = Architecture(
    base="model",
    model_types=("modernbert",),
    naming=Naming(
        query="attn.Wq",
        key="attn.Wk",
        value="attn.Wv",
        attention_output="attn.Wo",
        attention_norm="attn_norm",
        intermediate="mlp.Wi_input",
        gate="mlp.Wi_gate",
        output="mlp.Wo",
        output_norm="mlp_norm",
        norm_first=True,
        norm_in_first=False,
        biases=False,
    ),
    head=(
        HeadLayer(name="head.dense", activation="Gelu", norm="head.norm"),
        HeadLayer(name="classifier"),
    ),
    layers="layers",
    words="embeddings.tok_embeddings",
    positions=None,
    embedding_norm="embeddings.norm",
    final_norm="final_norm",
    stacked={
        "attn.Wqkv": ("attn.Wq", "attn.Wk", "attn.Wv"),
        "mlp.Wi": ("mlp.Wi_input", "mlp.Wi_gate"),
    },
    token_types=False,
    activation_field="hidden_activation",
    epsilon_field="norm_eps",
    default_epsilon=1e-5,
    attention_of=attention_of,
    pooling_of=pooling_of,
    unhandled=unhandled,
)
