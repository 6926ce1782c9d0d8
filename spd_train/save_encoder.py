"""The base model of an encoder in Transformers, with the layers of a student."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from spd_deploy.domain.encoder import Encoder
from spd_train.model import save_model
from spd_train.stacked import stacked

# Of a classifier's configuration; a base model keeps those that it came with.
_OF_A_HEAD = ("id2label", "label2id", "problem_type")


def save_encoder(
    reference: str,
    model: PreTrainedModel,
    encoder: Encoder,
    student: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """Write a base model that ``AutoModel`` loads.

    All but the layers is as in the original, so a pooler stays. Tensors that the original lacks,
    and that Transformers would draw at random, are left out here too.

    Args:
        reference: folder or hub name of the original.
        model: the classifier that the student was trained in.
        encoder: names its layers.
        student: the student's state dict, with the names of the classifier.
        folder: folder to write.

    Raises:
        NotWritten: a file cannot be written.
    """
    base, info = AutoModel.from_pretrained(
        reference,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    outer = f"{model.base_model_prefix}."
    whole = stacked(student, model.config.model_type)
    inside = f"{encoder.prefix}."
    layers = {n.removeprefix(outer): v for n, v in whole.items() if n.startswith(inside)}
    rest = {
        name: value
        for name, value in base.state_dict().items()
        if not name.startswith(inside.removeprefix(outer)) and name not in info["missing_keys"]
    }
    config = copy.deepcopy(model.config)
    for name in _OF_A_HEAD:
        setattr(config, name, getattr(base.config, name, None))
    save_model(config, {**rest, **layers}, folder, type(base))
