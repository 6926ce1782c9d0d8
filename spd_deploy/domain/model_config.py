"""The facts of a classifier in ``config.json``, read as Transformers reads them.

Transformers ignores fields that its code does not know. A field that says that the model computes
otherwise than that code is refused here, since nothing else would notice.
"""

from collections.abc import Mapping
from typing import Any, Literal

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, SpdError
from spd_deploy.domain.models.known import ARCHITECTURES
from spd_deploy.domain.tasks import DEFAULT_METRICS, Columns, ProblemType, Task

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

# The activations that can be exported, by the names that Transformers has for each. The four of
# ``gelu_tanh`` write one formula in four ways.
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}

# What Transformers takes for BERT where config.json is silent.
_EPSILON = 1e-12


def has_token_types(config: object) -> bool:
    """Whether a Transformers configuration has token types that tell two texts of a pair apart."""
    return bool(getattr(config, "type_vocab_size", 0) > 1)


def activation_of(encoder: Encoder, config: Mapping[str, Any]) -> Activation:
    """The activation of the feed-forward part that ``config.json`` names.

    Raises:
        BadModel: one that cannot be exported.
    """
    known = ARCHITECTURES.get(encoder.base)
    name = "hidden_act" if known is None else known.activation_field
    found = config.get(name, "gelu")
    if not isinstance(found, str) or found not in ACTIVATIONS:
        raise BadModel(
            f"the activation of this model, {name} in config.json, cannot be exported",
            got=repr(found),
            fix=f"use a model with one of {', '.join(ACTIVATIONS)}",
        )
    return ACTIVATIONS[found]


def epsilon_of(encoder: Encoder, config: Mapping[str, Any]) -> float:
    """The epsilon that layer norms add to the variance."""
    known = ARCHITECTURES.get(encoder.base)
    if known is not None and known.epsilon is not None:
        return known.epsilon
    name = "layer_norm_eps" if known is None else known.epsilon_field
    default = _EPSILON if known is None else known.default_epsilon
    found = config.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or found <= 0:
        raise BadModel(
            f"{name} in config.json is not a positive number",
            got=repr(found),
            fix="use the model's original config.json",
        )
    return float(found)


def task_from_config(config: Mapping[str, Any]) -> Task:
    """The nameless task of a model that does not say what it was trained for.

    Raises:
        BadModel: labels or a problem type that Transformers cannot read either.
    """
    labels, kind = labels_of(config), _problem_type(config)
    sigmoid = kind is None and len(labels) == 1  # a cross-encoder
    regression = kind is ProblemType.REGRESSION or sigmoid
    if len(set(labels)) < len(labels):
        raise _bad_labels(
            "gives two outputs one name, so that an answer would not tell which", labels
        )
    if regression and len(labels) > 1:
        raise BadModel(
            "config.json describes a regression with several numbers for a text",
            got=f"{len(labels)} labels",
            fix="use a model that answers with one number, or name its problem_type",
        )
    if kind is ProblemType.SINGLE_LABEL and len(labels) == 1:
        raise BadModel(
            "config.json has the problem_type single_label_classification, and one label",
            got=labels[0],
            fix="name two labels or more, or the problem_type regression",
        )
    return Task(
        name="unknown",
        labels=labels if sigmoid or not regression else (),
        problem_type=ProblemType.REGRESSION if regression else kind or ProblemType.SINGLE_LABEL,
        metrics=_metrics_of(kind, regression=regression),
        columns=Columns(text="text"),
        sigmoid=sigmoid,
    )


def _metrics_of(kind: ProblemType | None, *, regression: bool) -> tuple[str, ...]:
    """The metrics of a model that does not name its task."""
    if kind is ProblemType.MULTI_LABEL:
        return DEFAULT_METRICS[kind]
    return DEFAULT_METRICS[ProblemType.REGRESSION] if regression else ("accuracy",)


def labels_of(config: Mapping[str, Any], *, error: type[SpdError] = BadModel) -> tuple[str, ...]:
    """The labels of a classifier in the order of its outputs.

    As in Transformers, ``num_labels`` alone makes ``LABEL_0``, ``LABEL_1``, ...; so it does where
    ``id2label`` has another number of labels; and with neither there are two.

    Raises ``error`` where ``id2label`` or ``num_labels`` names no labels.
    """
    names, count = config.get("id2label"), config.get("num_labels")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise error(
            "num_labels in config.json is not a number of labels",
            got=repr(count),
            fix="set it to the number of the model's outputs",
        )
    if names is None or (count is not None and isinstance(names, dict) and len(names) != count):
        return tuple(f"LABEL_{i}" for i in range(2 if count is None else count))
    if not isinstance(names, dict) or not names:
        raise _bad_labels("does not map output numbers to labels", names, error)
    try:
        by_number = {int(key): name for key, name in names.items()}
    except ValueError as err:
        raise _bad_labels("has a key that is not an output's number", names, error) from err
    if sorted(by_number) != list(range(len(names))):
        raise _bad_labels("does not number the outputs 0, 1, 2, ...", names, error)
    if not all(isinstance(name, str | int | float) for name in by_number.values()):
        raise _bad_labels("has a label that is neither text nor a number", names, error)
    return tuple(str(by_number[i]) for i in range(len(names)))


def _problem_type(config: Mapping[str, Any]) -> ProblemType | None:
    """The problem type, where ``config.json`` names one."""
    found = config.get("problem_type")
    if found is None or found == "":
        return None
    try:
        return ProblemType(found)
    except ValueError as err:
        raise BadModel(
            "config.json has an unknown problem_type",
            got=repr(found),
            fix=f"set it to {', '.join(ProblemType)}, or to null",
        ) from err


def _bad_labels(what: str, names: object, error: type[SpdError] = BadModel) -> SpdError:
    """The error for an ``id2label`` that cannot be read."""
    return error(
        f"id2label in config.json {what}",
        got=repr(names)[:120],
        fix='set it to one name for each output, as in {"0": "negative", "1": "positive"}',
    )
