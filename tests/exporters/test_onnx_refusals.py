"""What an export refuses to write, and what opening an artefact refuses to take for one."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.torch import load_file, save_file

from exporters.export import artefact_from_checkpoint
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact, Manifest, open_artefact
from spd_deploy.domain.checkpoint import (
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
)
from spd_deploy.domain.documents import with_own_hash
from spd_deploy.domain.errors import BadArtefact, BadModel, NotWritten, VerificationFailed
from spd_deploy.sessions.onnxruntime import DATA_FILE, MODEL_FILE, PORTABLE_FILE
from spd_deploy.sessions.open import open_path
from tests.exporters.test_onnx import made
from tests.full_disk import full_disk
from tests.tiny import tiny_model, with_weights


def broken(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with one weight too many, described as if it were sound."""
    weights = load_file(checkpoint.weights)
    weight = weights["bert.encoder.layer.1.output.dense.weight"]
    weight[weight == 0] = 0.5
    return with_weights(checkpoint, weights)


@pytest.mark.parametrize("spelled", ["2:4", "block:32x1", "structured", "unstructured"])
def test_a_broken_pattern_is_not_written(tmp_path: Path, spelled: str) -> None:
    """Weights that do not satisfy the pattern stop the export, and an old artefact stays."""
    checkpoint, before = made(tmp_path, spelled, None)
    content = (before.folder / MANIFEST_FILE).read_text()

    with pytest.raises(VerificationFailed, match="does not satisfy"):
        artefact_from_checkpoint(broken(checkpoint), tmp_path / "a", overwrite=True)

    assert (before.folder / MANIFEST_FILE).read_text() == content
    open_artefact(before.folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c"]


def test_lost_parity_is_not_written(
    tmp_path: Path, dense_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that answers otherwise than the checkpoint is not written."""
    monkeypatch.setattr(
        "exporters.onnx.attention_bias._MASKED_SCORE", 0.0
    )  # padding is no longer hidden

    with pytest.raises(VerificationFailed, match="logits"):
        artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken_file", [MODEL_FILE, PORTABLE_FILE])
def test_a_graph_that_gives_no_numbers_is_not_written(
    tmp_path: Path,
    dense_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    broken_file: str,
) -> None:
    """NaN in either graph, whichever is compared first, stops the export."""
    written = write_graphs

    def spoiled(folder: Path, graphs: Any) -> None:
        written(folder, graphs)
        model = onnx.load(folder / broken_file, load_external_data=False)
        last = next(n for n in model.graph.node if n.output[0] == "logits")
        last.op_type = "Sqrt"  # of logits, some of which are negative
        (folder / broken_file).write_bytes(model.SerializeToString())

    monkeypatch.setattr("exporters.export.write_graphs", spoiled)

    with pytest.raises(VerificationFailed, match="logits"):
        artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")

    assert not list(tmp_path.iterdir())


def test_an_existing_output_stays(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """Without overwrite nothing is replaced; with it, only an artefact is."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")

    with pytest.raises(NotWritten, match="already exists"):
        artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")
    with pytest.raises(NotWritten, match="not an artefact"):
        artefact_from_checkpoint(dense_checkpoint, tmp_path / "a", overwrite=True)

    assert (tmp_path / "a" / "thesis.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """Out of space while writing the graph or the weights: one line, and no half artefact."""
    for limit in (2_000, 100_000):
        with full_disk(limit), pytest.raises(NotWritten, match=r"^could not write") as refused:
            artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")
        assert len(str(refused.value).splitlines()) == 1

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w.pop("classifier.bias"), "classifier.bias"),
        (lambda w: w.update({"bert.pooler.dense.bias": w["classifier.bias"]}), "pooler"),
    ],
)
def test_missing_and_misshapen_tensors_are_named(tmp_path: Path, damage: object, said: str) -> None:
    """A tensor the graph needs must be there, in its shape."""
    folder = tiny_model(tmp_path / "m")
    weights = load_file(folder / WEIGHTS_FILE)
    assert callable(damage)
    damage(weights)
    save_file({k: v.clone() for k, v in weights.items()}, folder / WEIGHTS_FILE)

    with pytest.raises(BadModel, match=said):
        artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    """A diverged model is refused as bad input, by the name of the tensor."""
    folder = tiny_model(tmp_path / "m")
    weights = load_file(folder / WEIGHTS_FILE)
    weights["bert.pooler.dense.weight"][0, 0] = value
    save_file(weights, folder / WEIGHTS_FILE)

    with pytest.raises(BadModel, match="pooler"):
        artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")


def test_an_activation_that_is_not_supported_is_named(tmp_path: Path) -> None:
    """An unknown activation is refused rather than guessed."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "mish"}))

    with pytest.raises(BadModel, match="activation"):
        artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")


def files_of(artefact: Artefact) -> list[str]:
    return sorted(artefact.manifest.files)


@pytest.mark.parametrize(
    "name", ["model.onnx", DATA_FILE, "tokenizer.json", "golden.safetensors", "config.json"]
)
def test_one_flipped_byte_is_found(tmp_path: Path, block_checkpoint: Checkpoint, name: str) -> None:
    """Whichever file is damaged, opening the artefact names it."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path / "a")
    assert name in files_of(artefact)
    file = artefact.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(BadArtefact, match=name):
        open_path(artefact.folder)


@pytest.fixture(scope="module")
def sound(block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a ``manifest.json``, which reads as it was written."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path_factory.mktemp("sound") / "a")
    value: dict[str, Any] = json.loads((artefact.folder / MANIFEST_FILE).read_text())
    assert Manifest.from_json(value) == artefact.manifest
    return value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": []}, "files: "),
        ({"files": {"model.onnx": 5}}, "files.model.onnx: "),
        ({"parity": {"max_difference": "0", "tolerance": 1e-3, "rows": 8}}, "parity.max_diff"),
        ({"parity": {"max_difference": 0.0, "tolerance": math.nan, "rows": 8}}, "parity.tol"),
        ({"parity": {"max_difference": 0.0, "rows": 8}}, "parity.tolerance"),
        ({"bf16": "no"}, "bf16: "),
        ({"max_tokens": "32"}, "max_tokens: "),
        ({"matrices": [{"name": "m"}]}, "matrices.0.shape"),
        ({"task": {}}, "task.name"),
        (
            {"runtime_timings": [{"runtime": "onnxruntime", "seconds": 1.0}]},
            "runtime_timings.0.seconds: ",
        ),
        ({"measured": [{"batch": 0, "seq": 1, "dense_s": 1.0, "chosen_s": 1.0}]}, "a shape"),
        ({"precison": "fp32"}, "precison"),
    ],
    ids=str,
)
def test_a_damaged_manifest_names_the_field(
    sound: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    """A field that is missing, unknown or of another type, wherever it is, is named."""
    fault = "(is damaged|lacks a field|has an unknown field|holds a number that is not finite)"

    with pytest.raises(BadArtefact, match=f"^the manifest {fault}; got {said}"):
        Manifest.from_json(with_own_hash({**sound, **change}))


def test_other_ways_to_damage_an_artefact(tmp_path: Path, block_checkpoint: Checkpoint) -> None:
    """A missing file, a link to nothing, a foreign manifest and a path outside are refused."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path / "a")
    value = json.loads((artefact.folder / MANIFEST_FILE).read_text())

    def damaged(**change: object) -> Path:
        folder = Path(
            shutil.copytree(artefact.folder, tmp_path / str(len(list(tmp_path.iterdir()))))
        )
        (folder / MANIFEST_FILE).write_text(json.dumps(with_own_hash({**value, **change})))
        return folder

    missing, linked = damaged(), damaged()
    (missing / "tokenizer.json").unlink()
    (linked / "tokenizer.json").unlink()
    (linked / "tokenizer.json").symlink_to(linked / "nothing")
    outside = damaged(files={"../c/config.json": "0", **value["files"]})
    for folder in (
        missing,
        linked,
        outside,
        damaged(schema=1),
        damaged(matrices=[{}]),
        damaged(files={}),
        tmp_path / "nowhere",
        block_checkpoint.folder,
    ):
        with pytest.raises(BadArtefact):
            open_artefact(folder)
