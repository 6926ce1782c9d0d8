"""Classifiers from and to Hugging Face folders: safetensors only, no code but Transformers."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from spd_deploy.domain.checkpoint import read_config, refuse_unsafe_weights
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, first_line
from spd_deploy.domain.files import not_written, refusals_named, replacing, write_text
from spd_deploy.domain.folders import did_you_mean, refuse_no_model
from spd_deploy.domain.layers import refusal, refuse_other_kind
from spd_deploy.domain.model_config import labels_of
from spd_deploy.domain.stored_weights import WEIGHTS_FILE
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, TOKENIZER_FILES
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_json
from spd_deploy.sessions.transformers_model import load_classifier as load_in_transformers
from spd_train.deberta import adapt_deberta
from spd_train.modernbert import adapt_modernbert
from spd_train.mpnet import adapt_mpnet
from spd_train.stacked import stacked

# What gives the attention of a model to Transformers' interface, where its own code does not, and
# its matrices layers of their own, where several are one.
_ADAPTERS: Mapping[str, Callable[[PreTrainedModel], None]] = {
    "deberta-v2": adapt_deberta,
    "modernbert": adapt_modernbert,
    "mpnet": adapt_mpnet,
}
_COMPLETE = "use a complete model whose config.json is its own"


def load_classifier(
    reference: str,
    task: Task,
    *,
    trained: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> PreTrainedModel:
    """The model in the folder ``reference`` as a classifier for ``task``.

    The classification head is initialised at random if the model has none, or one with another
    number of outputs.

    Args:
        reference: folder of the model.
        task: gives the number of outputs and their names.
        trained: the model must have its head already, with the task's outputs.
        note: reports if the model's own head is left out.

    Raises:
        BadModel: spd does not support the model, or its weights are incomplete, damaged or not
            safetensors.
    """
    model: PreTrainedModel = load_in_transformers(
        reference,
        config=classifier_config(reference, task),
        may_draw=_draw_nothing if trained else _is_of_head,
        note=note,
        fix="use a fine-tuned classifier of this task" if trained else _COMPLETE,
    )
    adapt(model)
    return model


def adapt(model: PreTrainedModel) -> None:
    """Make a model of Transformers one that can be grafted and pruned, where its own code is not.

    It computes the same.
    """
    if (adapter := _ADAPTERS.get(model.config.model_type)) is not None:
        adapter(model)


def classifier_config(reference: str, task: Task) -> Any:
    """The configuration at ``reference``, with the task's labels.

    Raises:
        BadModel: there is no model, spd does not support it, or its weights are not safetensors.
    """
    config = model_config(reference)
    names = task.labels or ("score",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    # Without a problem type Transformers applies a sigmoid to a single output.
    config.problem_type = None if task.sigmoid else task.problem_type.value
    return config


def model_config(reference: str) -> Any:
    """The configuration of the model in the folder ``reference``.

    Raises:
        BadModel: there is no model, spd does not support it, or its weights are not safetensors.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not (folder := Path(reference)).is_dir():
        fix = did_you_mean(folder) or "check --model"
        raise BadModel("no such model folder", got=reference, fix=fix)
    refuse_no_model(folder)
    refuse_unsafe_weights(folder)
    refuse_other_kind(config := read_config(folder))
    labels_of(config)  # AutoConfig fails without a reason on those that it cannot read
    try:
        config = AutoConfig.from_pretrained(reference, trust_remote_code=False)
    except Exception as err:
        raise BadModel(
            f"the configuration of {reference} could not be loaded",
            got=first_line(err),
            fix="name a folder with config.json and model.safetensors",
        ) from err
    encoder_from_config(config)  # refuses what is not handled
    return config


def encoder_from_config(config: Any) -> Encoder:
    """The encoder of a classifier with this configuration, found in a model without weights.

    Raises:
        BadModel: Transformers has no such classifier, or spd does not support it.
    """
    known = config.to_dict()
    skeleton = _skeleton_of(config)
    encoder = Encoder.found_in(dict(skeleton.shapes), known)
    if not skeleton.records_attention and config.model_type not in _ADAPTERS:
        raise refusal("its attention is its own, and its probabilities cannot be recorded", known)
    return encoder


def tensor_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a classifier with this configuration, by name.

    Raises:
        BadModel: Transformers has no such classifier.
    """
    return dict(_skeleton_of(config).shapes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Skeleton:
    """The facts of a classifier without its weights.

    Attributes:
        shapes: of each tensor, by name.
        records_attention: its attention goes through Transformers' interface.
    """

    shapes: Mapping[str, tuple[int, ...]]
    records_attention: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A configuration; two of one class that say the same are equal."""

    kind: type
    content: str
    config: Any = field(compare=False)


def _skeleton_of(config: Any) -> _Skeleton:
    """The skeleton of a classifier with this configuration."""
    content = config.to_json_string(use_diff=False)
    return _built(_Source(kind=type(config), content=content, config=config))


# A run asks ten times, and to build a skeleton takes longer than a step of a tiny model.
@lru_cache(maxsize=32)
def _built(source: _Source) -> _Skeleton:
    """The skeleton, built in Transformers without weights."""
    config = source.config
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise refusal("transformers has no sequence classifier of this type", config.to_dict())
    plain = copy.deepcopy(config)
    plain._attn_implementation = "eager"  # an adapted model's own is refused by Transformers' code
    try:
        with torch.device("meta"):
            model: PreTrainedModel = _classifier_class(config)(plain)
            adapt(model)
            shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    except Exception as err:
        raise BadModel(
            "config.json makes no model", got=err, fix="use the model's original config.json"
        ) from err
    return _Skeleton(shapes=shapes, records_attention=model._supports_attention_backend)


def encoder_sizes(model: PreTrainedModel) -> Encoder:
    """The encoder of a model, grafted or plain."""
    return encoder_from_config(model.config)


def linear_weights(model: nn.Module, encoder: Encoder) -> dict[str, nn.Parameter]:
    """The prunable weights ``[N, K]`` of a plain model by matrix name."""
    parameters = dict(model.named_parameters())
    return {m.name: parameters[m.weight_name] for m in encoder.matrices()}


def copy_tokenizer(reference: str, folder: Path) -> None:
    """Write the tokenizer of ``reference`` into ``folder``, with the ids that AutoTokenizer gives.

    Raises:
        BadModel: there is no tokenizer that the ``tokenizers`` library can read.
    """
    source = Path(reference)
    with refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    write_text(folder / TOKENIZER_FILE, tokenizer_json(reference))


def save_classifier(config: Any, state: dict[str, Any], folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, each as a whole or not at all.

    Args:
        config: configuration of the model.
        state: state dict of the plain model, adapted or as Transformers has it.
        folder: folder to write.

    Raises:
        NotWritten: a file cannot be written.
    """
    save_model(config, stacked(state, config.model_type), folder, _classifier_class(config))


def save_model(config: Any, state: Mapping[str, Any], folder: Path, architecture: type) -> None:
    """Write ``config.json`` and ``model.safetensors``, each as a whole or not at all.

    Args:
        config: configuration of the model.
        state: state dict of the model as Transformers has it.
        folder: folder to write.
        architecture: the class in Transformers that has this state.

    Raises:
        NotWritten: a file cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    value = {
        **json.loads(config.to_json_string(use_diff=False)),
        "architectures": [architecture.__name__],
        "dtype": "float32",
    }
    # The second is a path of this machine; the third an older name of dtype.
    for private in ("_attn_implementation", "_name_or_path", "torch_dtype"):
        value.pop(private, None)
    with replacing(folder / WEIGHTS_FILE) as draft:
        try:
            save_file(tensors, draft, metadata={"format": "pt"})
        except Exception as err:  # safetensors wraps the system's errors in its own
            raise not_written(folder / WEIGHTS_FILE, err) from err
    with replacing(folder / "config.json") as draft:
        draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _classifier_class(config: Any) -> Any:
    """The class in Transformers for a classifier with this configuration."""
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]


def _is_of_head(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor belongs to the head: it is outside the base model, or in its pooler."""
    base = model.base_model_prefix
    return not name.startswith(f"{base}.") or name.startswith(f"{base}.pooler.")


def _draw_nothing(name: str, model: PreTrainedModel) -> bool:
    """False: no tensor of a trained classifier may be initialised at random."""
    return False
