"""Encoders from config.json, and checkpoints on disk."""

import json
import shutil
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import (
    SPD_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
)
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadCheckpoint, BadModel, BadPattern
from spd_deploy.domain.patterns import Block, Structured, parse_pattern
from tests.tiny import tiny_checkpoint, tiny_model

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}


def copied(checkpoint: Checkpoint, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint.folder, folder / "copy"))


def test_bert_base_has_the_papers_count_of_weights() -> None:
    """72 matrices with 84,934,656 weights, as SPD prunes them."""
    matrices = list(Encoder.from_config(BERT).matrices())

    assert len(matrices) == 72
    assert sum(m.shape[0] * m.shape[1] for m in matrices) == 84_934_656


def test_matrices_are_the_models_own(dense_checkpoint: Checkpoint) -> None:
    """Every name and shape is one of the stored tensors."""
    from safetensors.numpy import load_file

    stored = load_file(dense_checkpoint.weights)

    for matrix in dense_checkpoint.encoder.matrices():
        assert stored[matrix.weight_name].shape == matrix.shape


def test_every_matrix_is_coupled_once() -> None:
    """Heads and neurons share all matrices out among them."""
    encoder = Encoder.from_config(BERT)

    coupled = [m.name for group in encoder.coupled() for m in group]

    assert sorted(coupled) == sorted(m.name for m in encoder.matrices())


def test_coupled_slices_are_equally_many() -> None:
    """The structured pattern cuts all matrices of a group into the same number of slices."""
    encoder = Encoder.from_config(BERT)
    for group in encoder.coupled():
        counts = set()
        for matrix in group:
            pattern = encoder.pattern_on(matrix, Structured())
            assert isinstance(pattern, Structured)
            counts.add(matrix.shape[pattern.axis] // pattern.width)
        assert counts in ({12}, {3072})


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_size": "many"},
        {"num_attention_heads": 7},
        {"num_hidden_layers": 0},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
    ],
)
def test_what_is_no_plain_bert_is_refused(change: dict[str, object]) -> None:
    """Another architecture, or sizes that do not fit, are named."""
    with pytest.raises(BadModel):
        Encoder.from_config({**BERT, **change})


def test_a_pattern_that_does_not_fit_the_model_is_refused() -> None:
    """Dimensions that the block does not divide are refused before anything is trained."""
    with pytest.raises(BadPattern, match="divide"):
        Encoder.from_config(BERT).check(Block(rows=100, columns=1))


def test_opening_gives_what_was_saved(tmp_path: Path) -> None:
    """A checkpoint read from disk equals the one that was written."""
    saved = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("2:4"), task="mrpc")

    found = open_checkpoint(tmp_path / "c")

    assert found == saved
    assert str(found.pattern) == "2:4"
    assert set(found.densities.values()) == {0.5}


def test_a_flipped_byte_in_the_weights_is_found(
    tmp_path: Path, dense_checkpoint: Checkpoint
) -> None:
    """Weights that are not the ones described are refused."""
    folder = copied(dense_checkpoint, tmp_path)
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)

    with pytest.raises(BadCheckpoint, match="not the file"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value | {"schema": 99},
        lambda value: value | {"pattern": "3:2"},
        lambda value: value | {"task": {}},
        lambda value: {k: v for k, v in value.items() if k != "max_tokens"},
        lambda value: value | {"matrices": [1]},
    ],
)
def test_a_damaged_description_is_refused(
    tmp_path: Path, dense_checkpoint: Checkpoint, damage: object
) -> None:
    """A spd.json with a wrong or missing field is one clear error."""
    folder = copied(dense_checkpoint, tmp_path)
    value = json.loads((folder / SPD_FILE).read_text())
    assert callable(damage)
    (folder / SPD_FILE).write_text(json.dumps(damage(value)))

    with pytest.raises((BadCheckpoint, BadPattern)):
        open_checkpoint(folder)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    """A model that is only there as a pickle is refused, and named."""
    folder = tiny_model(tmp_path / "m")
    (folder / WEIGHTS_FILE).rename(folder / "pytorch_model.bin")

    with pytest.raises(BadModel, match=r"no model\.safetensors") as caught:
        open_checkpoint(folder)

    assert "pytorch_model.bin" in str(caught.value)


def test_a_plain_folder_is_a_dense_model(tmp_path: Path) -> None:
    """A Hugging Face folder without spd.json opens with its own labels."""
    found = open_checkpoint(tiny_model(tmp_path / "m"))

    assert found.pattern is None
    assert found.task.labels == ("no", "yes")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """A missing folder, or one without a model, is one clear error."""
    with pytest.raises((BadCheckpoint, BadModel)):
        open_checkpoint(tmp_path / name)
