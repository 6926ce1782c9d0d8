"""Weights as folders from elsewhere store them, against what Transformers makes of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from exporters.classifier_weights import read_weights
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.patterns import NM
from spd_deploy.domain.stored_weights import (
    INDEX_FILE,
    WEIGHTS_FILE,
    sha256_of_weights,
    stored_weights,
)
from spd_deploy.domain.tensor_names import read_name
from tests.tiny import CONFIGS, classifier_of, tiny_config, tiny_model

State = dict[str, Tensor]


def rewritten(folder: Path, change: Callable[[State], State]) -> Path:
    """The folder with its tensors changed."""
    tensors = change(load_file(folder / WEIGHTS_FILE))
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        folder / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    return folder


def sharded(folder: Path) -> Path:
    """The folder with its weights in shards, as save_pretrained cuts them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / WEIGHTS_FILE).unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def legacy(state: State) -> State:
    """Norms named as TensorFlow's are, and the encoder as it is named when it is saved alone."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta")
        .removeprefix("bert."): value
        for name, value in state.items()
    }
    assert any(name.endswith("LayerNorm.gamma") for name in renamed)
    return renamed


def with_masks(state: State) -> State:
    """2:4 weights with the mask buffers that NVIDIA's ASP leaves beside them."""
    out = dict(state)
    for name, value in state.items():
        if ".layer." in name and value.dim() == 2:
            mask = NM(n=2, m=4).mask(value.abs(), 0.5).bool()
            out[name] = value * mask
            out[name.removesuffix("weight") + "__weight_mma_mask"] = mask
    return out


@pytest.mark.parametrize("model_type", CONFIGS)
def test_names_are_read_as_transformers_reads_them(model_type: str) -> None:
    """Each tensor's name, its legacy form and its form without the base are renamed alike."""
    model = classifier_of(tiny_config(model_type, layers=1))
    state = model.state_dict()
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    for name in state:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old = old.replace("LayerNorm.bias", "LayerNorm.beta")
        for stored in (name, old, old.removeprefix(f"{model.base_model_prefix}.")):
            expected, _ = rename_source_key(
                stored, renamings, converters, model.base_model_prefix, state
            )
            assert read_name(stored, model_type) == expected == name


@pytest.mark.parametrize("number", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_are_exported_in_fp32(tmp_path: Path, number: torch.dtype) -> None:
    """The logits are Transformers' own in fp32, and the config of the artefact says fp32."""
    folder = rewritten(
        tiny_model(tmp_path / "m"), lambda s: {n: v.to(number) for n, v in s.items()}
    )

    checkpoint = open_checkpoint(folder)
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5
    said = {torch.float16: "F16", torch.bfloat16: "BF16"}.get(number)
    assert [f"as {said} and" in note for note in checkpoint.notes] == ([True] if said else [])
    for name, value in read_weights(checkpoint).tensors.items():
        stored = load_file(folder / WEIGHTS_FILE)[name]
        assert torch.equal(torch.from_numpy(value), stored.float())


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_a_config_of_half_precision_is_loaded_in_fp32(tmp_path: Path, field: str) -> None:
    """What config.json says of the precision changes no logit and is not handed on."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config | {field: "bfloat16"}))

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5
    exported = json.loads((artefact.folder / "config.json").read_text())
    assert (exported["dtype"], exported.get("torch_dtype")) == ("float32", None)


@pytest.mark.parametrize("how", ["shards", "legacy", "masks"])
def test_weights_from_elsewhere_are_exported(tmp_path: Path, how: str) -> None:
    """Shards, TensorFlow's names and ASP's mask buffers are read as Transformers reads them."""
    folder = tiny_model(tmp_path / "m")
    if how == "shards":
        sharded(folder)
    else:
        rewritten(folder, legacy if how == "legacy" else with_masks)

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5


def test_shards_are_read_like_one_file(tmp_path: Path) -> None:
    """Names, shapes, zeros and values are those of the model in one file; a changed shard tells."""
    whole = open_checkpoint(rewritten(tiny_model(tmp_path / "m"), with_masks))
    parts = open_checkpoint(sharded(rewritten(tiny_model(tmp_path / "s"), with_masks)))

    assert parts.densities == whole.densities
    assert str(parts.pattern) == str(whole.pattern) == "2:4"
    expected = read_weights(whole).tensors
    found = read_weights(parts).tensors
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    before = sha256_of_weights(parts.folder)
    shard = next(parts.folder.glob("model-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert sha256_of_weights(parts.folder) != before


def test_what_transformers_passes_over_is_told(tmp_path: Path) -> None:
    """Tensors in a layer that are no part of it are counted and named, and the pattern found."""
    found = open_checkpoint(rewritten(tiny_model(tmp_path / "m"), with_masks))

    (note,) = found.notes
    assert "12 tensors in the layers are ignored" in note
    assert "bert.encoder.layer.0.attention.output.dense.__weight_mma_mask" in note
    assert str(found.pattern) == "2:4"


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "damaged"),
        ({"weight_map": {}}, "names no shards"),
        ({"weight_map": {"a": "gone.safetensors"}}, "no gone.safetensors"),
        ({"weight_map": {"a": "../out.safetensors"}}, "beside it"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "beside it"),
        ({"weight_map": ["model.safetensors"]}, "damaged"),
    ],
)
def test_an_index_that_is_none_is_refused(
    tmp_path: Path, index: dict[str, object], said: str
) -> None:
    """A missing shard, one elsewhere or of another kind, and a damaged index are one line each."""
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))

    with pytest.raises(BadModel, match=said):
        stored_weights(tmp_path, {})


def test_integers_are_no_weights(tmp_path: Path) -> None:
    """Quantised matrices are refused by name and type, not read as numbers."""
    name = "bert.encoder.layer.1.output.dense.weight"
    folder = rewritten(tiny_model(tmp_path / "m"), lambda s: s | {name: s[name].to(torch.int8)})

    with pytest.raises(BadModel, match=rf"{name} in .* got I8"):
        open_checkpoint(folder)


@pytest.mark.parametrize("named", ["pytorch_model", "model.fp16", "model-00001-of-00002"])
def test_safetensors_of_another_name_are_told_their_name(tmp_path: Path, named: str) -> None:
    """A variant and a shard without its index are named with what Transformers would read."""
    folder = tiny_model(tmp_path / "m")
    (folder / WEIGHTS_FILE).rename(folder / f"{named}.safetensors")

    with pytest.raises(BadModel, match=rf"{named}.safetensors; name the file {WEIGHTS_FILE}"):
        open_checkpoint(folder)


def test_a_config_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    """Half a surrogate pair could be read, and not be written into the artefact."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {"0": "\ud800", "1": "yes"}}
    (folder / "config.json").write_text(json.dumps(config | labels))

    with pytest.raises(BadModel, match=r"config.json holds half a surrogate pair.*id2label"):
        open_checkpoint(folder)


def test_a_config_that_asks_for_tuples_is_run(tmp_path: Path) -> None:
    """With return_dict false the logits are those of the same model without it."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"return_dict": False}))

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5


def test_a_pointer_of_git_lfs_is_no_weights(tmp_path: Path) -> None:
    """What git clones without Git LFS is named, with the command that fetches the weights."""
    folder = tiny_model(tmp_path / "m")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (folder / WEIGHTS_FILE).write_text(pointer)

    with pytest.raises(BadModel, match="pointer of Git LFS, not the weights; run git lfs pull"):
        open_checkpoint(folder)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    """A folder that PEFT wrote is told what to do with it."""
    folder = tiny_model(tmp_path / "m")
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.safetensors")

    with pytest.raises(BadModel, match=r"holds an adapter.*merge_and_unload"):
        open_checkpoint(folder)
