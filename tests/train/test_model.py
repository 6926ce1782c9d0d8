"""Classifiers of each architecture, from and to folders, against transformers."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spd_deploy.domain.checkpoint import WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.tasks import TASKS
from spd_deploy.domain.text import Tokens
from spd_train.data.batching import LabelledTokens, TensorBatch, batch_of
from spd_train.model import (
    adapt,
    classifier_config,
    encoder_from_config,
    encoder_sizes,
    linear_weights,
    load_classifier,
    save_classifier,
)
from spd_train.stacked import stacked
from tests.tiny import CONFIGS, classifier_of, tiny_config, tiny_model

TASK = TASKS["mrpc"]
every_architecture = pytest.mark.parametrize("architecture", CONFIGS)


def pairs() -> TensorBatch:
    """A padded batch of pairs."""
    rows = [
        Tokens(ids=tuple(range(5, 5 + length)), types=(0, 0) + (1,) * (length - 2))
        for length in (9, 4)
    ]
    labelled = [LabelledTokens(tokens=tokens, label=0.0) for tokens in rows]
    return batch_of(labelled, pad_id=1, device="cpu")


@every_architecture
def test_a_saved_model_is_loaded_by_transformers(tmp_path: Path, architecture: str) -> None:
    """The folder names the model's own class, and the class gives the same logits."""
    folder = tiny_model(tmp_path / "m", architecture=architecture, task=TASK)
    model = load_classifier(str(folder), TASK, trained=True).train(mode=False)

    save_classifier(model.config, model.state_dict(), tmp_path / "s")

    (name,) = json.loads((tmp_path / "s" / "config.json").read_text())["architectures"]
    again = getattr(transformers, name).from_pretrained(tmp_path / "s")
    inputs = pairs().model_inputs(model.config)
    assert type(again) is type(model)
    logits_BC = [one(**inputs).logits for one in (again, model)]
    own_attention = architecture in ("modernbert", "deberta-v2")
    torch.testing.assert_close(*logits_BC, rtol=0, atol=1e-5 if own_attention else 0)
    assert open_checkpoint(tmp_path / "s").encoder == encoder_sizes(model)


@every_architecture
def test_inputs_are_what_the_model_takes(architecture: str) -> None:
    """Token types are given where the model tells two apart, and nowhere else."""
    model = classifier_of(tiny_config(architecture))

    inputs = pairs().model_inputs(model.config)

    assert ("token_type_ids" in inputs) == (architecture in ("bert", "electra", "ernie"))
    assert model(**inputs).logits.shape == (2, 2)


@every_architecture
def test_prunable_weights_are_the_models_own(architecture: str) -> None:
    """Each matrix of the encoder is a parameter of its shape."""
    model = classifier_of(tiny_config(architecture))
    adapt(model)
    encoder = encoder_sizes(model)

    weights = linear_weights(model, encoder)

    assert {n: tuple(w.shape) for n, w in weights.items()} == {
        m.name: m.shape for m in encoder.matrices()
    }


@every_architecture
def test_a_pretrained_encoder_gets_a_new_head(tmp_path: Path, architecture: str) -> None:
    """What lies outside the base model, and its pooler, may be made up; the rest is loaded."""
    folder = tiny_model(tmp_path / "m", architecture=architecture)
    whole = load_file(folder / WEIGHTS_FILE)
    base = encoder_from_config(tiny_config(architecture)).base
    kept = {k: v for k, v in whole.items() if k.startswith(f"{base}.") and "pooler" not in k}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    state = stacked(load_classifier(str(folder), TASK).state_dict(), architecture)

    made_up = {name for name in state.keys() - whole.keys() if not name.endswith(".bias")}
    assert state.keys() >= whole.keys() and not made_up
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    with pytest.raises(BadModel, match=r"lack .*; use a fine-tuned classifier"):
        load_classifier(str(folder), TASK, trained=True)


@every_architecture
def test_an_encoder_may_not_be_made_up(tmp_path: Path, architecture: str) -> None:
    """A tensor that the base model lacks is named."""
    folder = tiny_model(tmp_path / "m", architecture=architecture)
    weights = load_file(folder / WEIGHTS_FILE)
    name = next(n for n in weights if ".layer.1." in n or ".layers.1." in n)
    del weights[name]
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    with pytest.raises(BadModel, match=f"lack 1 tensors; got {name}"):
        load_classifier(str(folder), TASK)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.YosoConfig(num_hidden_layers=1), "its attention is its own"),
        (transformers.ViTConfig(), "no sequence classifier"),
        (transformers.BertConfig(hidden_size=30, num_attention_heads=4), "makes no model"),
    ],
)
def test_a_configuration_that_will_not_do_is_refused(
    tmp_path: Path, config: transformers.PretrainedConfig, reason: str
) -> None:
    """Attention that cannot be recorded, another task, and sizes that make no model."""
    config.save_pretrained(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"")

    with pytest.raises(BadModel, match=reason):
        classifier_config(str(tmp_path), TASK)


def test_finding_an_encoder_draws_no_random_numbers() -> None:
    """The skeleton takes nothing from the generator on which a run's bits depend."""
    before = torch.get_rng_state()

    encoder_from_config(tiny_config())

    assert torch.equal(torch.get_rng_state(), before)
