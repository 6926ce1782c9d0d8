"""Classifiers from and to Hugging Face folders: safetensors only, no code but transformers' own."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from spd_deploy.domain.checkpoint import WEIGHTS_FILE, refuse_lacking, refuse_unsafe_weights
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, first_line
from spd_deploy.domain.files import not_written, refusals_named, replacing
from spd_deploy.domain.folders import did_you_mean, refuse_no_model
from spd_deploy.domain.layers import refusal
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE, TOKENIZER_FILES
from spd_train.hub import is_path


def load_classifier(reference: str, task: Task, *, trained: bool = False) -> PreTrainedModel:
    """The encoder at ``reference``, a folder or a name on the hub, as a classifier for ``task``.

    Args:
        reference: where the model is.
        task: how many outputs it needs and what they are called.
        trained: the model must have its classifier already, with the task's outputs.

    Raises:
        BadModel: a model that is not handled, not safetensors, damaged, or without a whole encoder.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = classifier_config(reference, task)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            reference,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=False,
        )
    except Exception as err:
        raise BadModel(
            f"{reference} does not load as a classifier",
            got=err,
            fix="check that the model is complete and stored as model.safetensors",
        ) from err
    _refuse_missing(reference, info["missing_keys"], model.base_model_prefix, trained=trained)
    return model  # type: ignore[no-any-return]


def classifier_config(reference: str, task: Task) -> Any:
    """The configuration at ``reference``, checked to be handled and fitted to the task.

    Raises:
        BadModel: no model there, one that is not handled, or weights that are not safetensors.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if Path(reference).is_dir():
        refuse_no_model(Path(reference))
        refuse_unsafe_weights(Path(reference))
    elif is_path(reference):
        fix = did_you_mean(Path(reference)) or "check --model"
        raise BadModel("no such model folder", got=reference, fix=fix)
    try:
        config = AutoConfig.from_pretrained(reference, trust_remote_code=False)
    except Exception as err:
        raise BadModel(
            f"{reference} is no model folder, and no such model could be had from the hub",
            got=first_line(err),
            fix="name a folder with config.json and model.safetensors",
        ) from err
    encoder_from_config(config)  # refuses what is not handled
    names = task.labels or ("score",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    # Where Transformers finds none it applies a sigmoid to the only output.
    config.problem_type = None if task.sigmoid else task.problem_type.value
    return config


def encoder_from_config(config: Any) -> Encoder:
    """The encoder that a classifier with this configuration has, found in one without weights.

    Raises:
        BadModel: transformers has no such classifier, or one that is not handled.
    """
    known = config.to_dict()
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise refusal("transformers has no sequence classifier of this type", known)
    try:
        with torch.device("meta"):
            skeleton = _classifier_class(config)(copy.deepcopy(config))
    except Exception as err:
        raise BadModel(
            "config.json makes no model", got=err, fix="use the model's original config.json"
        ) from err
    shapes = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    encoder = Encoder.found_in(shapes, known)
    if not skeleton._supports_attention_backend:
        raise refusal("its attention is its own, and its probabilities cannot be recorded", known)
    return encoder


def encoder_sizes(model: PreTrainedModel) -> Encoder:
    """The encoder of a model, grafted or not."""
    return encoder_from_config(model.config)


def linear_weights(model: nn.Module, encoder: Encoder) -> dict[str, nn.Parameter]:
    """The prunable weights of a plain model by matrix name."""
    found = dict(model.named_parameters())
    return {m.name: found[m.weight_name] for m in encoder.matrices()}


def copy_tokenizer(reference: str, folder: Path) -> None:
    """Put the tokenizer of ``reference`` into ``folder``; an old one is turned into a fast one.

    Raises:
        BadModel: there is no tokenizer that the ``tokenizers`` library can hold.
    """
    source = Path(reference)
    with refusals_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (source / TOKENIZER_FILE).is_file():
            for name in TOKENIZER_FILES:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
            return
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(reference, trust_remote_code=False).save_pretrained(folder)
    except Exception as err:
        raise BadModel(
            f"{reference} has no tokenizer that can be read",
            got=err,
            fix="put tokenizer.json, or vocab.txt, beside the model",
        ) from err
    if not (folder / TOKENIZER_FILE).is_file():
        raise BadModel(
            f"the tokenizer of {reference} has no fast form",
            fix="use a model with tokenizer.json or vocab.txt",
        )


def save_classifier(config: Any, state: dict[str, Any], folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, each whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    value = {
        **json.loads(config.to_json_string(use_diff=False)),
        "architectures": [_classifier_class(config).__name__],
    }
    for private in (
        "_attn_implementation",
        "_name_or_path",
    ):  # the latter is a path of this machine
        value.pop(private, None)
    with replacing(folder / WEIGHTS_FILE) as draft:
        try:
            save_file(tensors, draft, metadata={"format": "pt"})
        except Exception as err:  # safetensors wraps the system's errors in its own
            raise not_written(folder / WEIGHTS_FILE, err) from err
    with replacing(folder / "config.json") as draft:
        draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _classifier_class(config: Any) -> Any:
    """The class of transformers' that makes a classifier of this configuration."""
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]


def _refuse_missing(reference: str, missing: list[str], base: str, *, trained: bool) -> None:
    """A new head, which is all outside the base model and its pooler, may be made up; no more."""

    def of_head(name: str) -> bool:
        return not name.startswith(f"{base}.") or name.startswith(f"{base}.pooler.")

    lacking = [name for name in missing if trained or not of_head(name)]
    fix = "use a fine-tuned classifier" if trained else "use a complete model"
    refuse_lacking(reference, lacking, fix=fix)
