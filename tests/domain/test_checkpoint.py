"""Checkpoints on disk."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import (
    SPD_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
)
from spd_deploy.domain.errors import BadCheckpoint, BadModel, BadPattern
from spd_deploy.domain.patterns import Structured, parse_pattern
from tests.tiny import tiny_checkpoint, tiny_model


def copied(checkpoint: Checkpoint, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint.folder, folder / "copy"))


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"pattern": "block:48x1", "sparsity": 0.5},
            "block:48x1 does not divide the matrix, 64x64",
        ),
        ({"pattern": "block:16x48", "sparsity": 0.5}, "does not divide the matrix, 64x64"),
        ({"pattern": "7:14", "sparsity": None}, "needs a number of inputs that 14 divides"),
    ],
    ids=str,
)
def test_a_pattern_of_another_model_is_refused(
    tmp_path: Path, dense_checkpoint: Checkpoint, change: dict[str, object], said: str
) -> None:
    """A declared pattern that a matrix cannot have is one error, which names the matrix."""
    folder = copied(dense_checkpoint, tmp_path)
    value = json.loads((folder / SPD_FILE).read_text())
    (folder / SPD_FILE).write_text(json.dumps(value | change))

    with pytest.raises(BadCheckpoint, match=f"layer.0.attention.self.query cannot have; .*{said}"):
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


def test_the_density_counts_matrices_by_their_size(tmp_path: Path) -> None:
    """It is the share of non-zeros of all prunable weights together."""
    checkpoint = tiny_checkpoint(
        tmp_path / "c",
        pattern=Structured(),
        goals={f"bert.encoder.layer.0.{m}.dense": 0.9 for m in ("intermediate", "output")},
    )
    state = load_file(checkpoint.weights)
    weights = [state[m.weight_name] for m in checkpoint.encoder.matrices()]
    kept = sum(int(w.count_nonzero()) for w in weights)
    assert checkpoint.density == pytest.approx(kept / sum(w.numel() for w in weights))
