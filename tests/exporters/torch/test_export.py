"""Torch artefacts: the checkpoint's logits on the CPU, its weights, and nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exporters.torch.export import torch_artefact_from_checkpoint
from exporters.torch.pack import bytes_of_tensors
from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadCheckpoint, BadSetting, NotWritten, VerificationFailed
from spd_deploy.domain.number_types import FloatType
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.open import difference_between, prove, session_from_artefact
from spd_deploy.sessions.torch import TorchSession
from spd_deploy.sessions.torch_network.network_plan import PLAN_FILE, TENSORS_FILE, read_plan
from tests.tiny import OF_ROBERTA, tiny_checkpoint, with_weights

# Pattern, sparsity, precision and sizes, with how matrices are run.
KINDS: list[tuple[str, str | None, float | None, FloatType, str]] = [
    ("bert", "block:32x1", 0.75, "fp16", "gathered"),
    ("bert", "block:32x1", 0.75, "fp32", "gathered"),
    ("roberta", "block:16x4", 0.9, "fp16", "gathered"),
    ("distilbert", "block:64x1", 0.75, "bf16", "gathered"),
    ("electra", "block:32x1", 0.75, "fp16", "gathered"),
    ("bert", "2:4", None, "fp16", "2:4"),
    ("roberta", "structured", 0.5, "bf16", "compact"),
    ("distilbert", "structured", 0.75, "fp32", "compact"),
    ("electra", "unstructured", 0.9, "fp16", "dense"),
    ("mpnet", "block:32x1", 0.75, "fp16", "gathered"),
    ("mpnet", "structured", 0.5, "bf16", "compact"),
    ("modernbert", "block:32x1", 0.75, "fp16", "gathered"),
    ("modernbert", "2:4", None, "fp16", "2:4"),
    ("modernbert", "structured", 0.5, "bf16", "compact"),
    ("deberta-v2", "block:32x1", 0.75, "fp16", "gathered"),
    ("deberta-v2", "2:4", None, "fp16", "2:4"),
    ("deberta-v2", "structured", 0.5, "bf16", "compact"),
]
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}


def made(
    folder: Path,
    spelled: str | None,
    sparsity: float | None,
    number: FloatType,
    *,
    architecture: str = "bert",
    **sizes: Any,
) -> tuple[Checkpoint, Artefact]:
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    checkpoint = tiny_checkpoint(
        folder / "c", architecture=architecture, pattern=pattern, seed=3, **sizes
    )
    artefact = torch_artefact_from_checkpoint(checkpoint, folder / "a", precision=number)
    return checkpoint, artefact


@pytest.mark.parametrize(
    ("architecture", "spelled", "sparsity", "number", "lowering"),
    KINDS,
    ids=lambda value: str(value),
)
def test_an_artefact_gives_its_checkpoints_logits(
    tmp_path: Path,
    architecture: str,
    spelled: str | None,
    sparsity: float | None,
    number: FloatType,
    lowering: str,
) -> None:
    """At any batch and any length from 1 on, padded or alone, and in the self-test."""
    checkpoint, artefact = made(tmp_path, spelled, sparsity, number, architecture=architecture)
    padding = 1 if architecture in OF_ROBERTA else 0
    draw = np.random.default_rng(1)

    with (
        TorchSession(checkpoint.folder) as reference,
        session_from_artefact(artefact, threads=1) as session,
    ):
        assert prove(session, artefact) <= TOLERANCES[number]
        for lengths in ((1,), (2, 1), (5, 32, 17), (9,) * 8):
            rows = [
                Tokens(
                    ids=tuple(draw.integers(2, checkpoint.encoder.vocabulary, n).tolist()),
                    types=(0,) * n,
                )
                for n in lengths
            ]
            batch = pad(rows, pad_id=padding)
            wanted, together = reference.run(batch), session.run(batch)
            alone = np.concatenate([session.run(pad([row], pad_id=padding)) for row in rows])
            for found in (together, alone):
                assert difference_between(found, wanted) <= TOLERANCES[number]

    assert {row.lowering for row in artefact.manifest.matrices} == {lowering}
    assert artefact.manifest.runtime_choice.runtime == "torch"


def test_weights_are_the_checkpoints(tmp_path: Path) -> None:
    """In fp32 bit for bit, from values and the blocks they belong to."""
    checkpoint, artefact = made(tmp_path, "block:32x4", 0.75, "fp32")
    before = load_file(checkpoint.weights)
    after = load_file(artefact.folder / TENSORS_FILE)

    for matrix in read_plan(artefact.folder).matrices:
        values, index = after[f"{matrix.name}.weight"], after[f"{matrix.name}.index"]
        dense = torch.zeros(matrix.outputs // 32, 32, matrix.inputs // 4, 4)
        for g, blocks in enumerate(index.long()):
            dense[g][:, blocks] = values[g].reshape(32, -1, 4)
        whole = dense.reshape(matrix.outputs, matrix.inputs)
        assert torch.equal(whole, before[f"{matrix.name}.weight"])


def test_the_folder_holds_no_pickle(tmp_path: Path) -> None:
    """Safetensors, JSON and the tokenizer's files; every one with its hash in the manifest."""
    _, artefact = made(tmp_path, "block:32x1", 0.75, "fp16")
    names = {file.name for file in artefact.folder.iterdir()}

    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".txt"}
    assert names - {MANIFEST_FILE} == set(artefact.manifest.files)
    assert {PLAN_FILE, TENSORS_FILE} <= names


def test_half_precision_takes_half_the_room(tmp_path: Path) -> None:
    """Matrices and tables of embeddings; and what is sparse is not stored dense."""
    _, dense = made(tmp_path / "d", None, None, "fp32")
    _, sparse = made(tmp_path / "s", "block:64x1", 0.75, "fp16")
    names = [row.name for row in dense.manifest.matrices]

    stored = bytes_of_tensors(sparse.folder / TENSORS_FILE, names)

    kept = sum(row.shape[0] * row.shape[1] // 4 for row in sparse.manifest.matrices)
    assert stored == 2 * kept + 4 * kept // 64
    assert bytes_of_tensors(dense.folder / TENSORS_FILE, names) == 4 * 4 * kept
    tensors = load_file(sparse.folder / TENSORS_FILE)
    assert tensors["bert.embeddings.word_embeddings.weight"].dtype == torch.float16
    assert tensors["classifier.weight"].dtype == torch.float32


def test_dead_heads_and_neurons_are_not_stored(tmp_path: Path) -> None:
    """A layer whose heads, or neurons, all went still adds its biases."""
    checkpoint, _ = made(tmp_path, "structured", 0.75, "fp32", heads=8)
    weights = load_file(checkpoint.weights)
    for role in ("self.query", "self.key", "self.value", "output.dense"):
        for part in ("weight", "bias") if role != "output.dense" else ("weight",):
            weights[f"bert.encoder.layer.0.attention.{role}.{part}"].zero_()
    weights["bert.encoder.layer.1.intermediate.dense.weight"].zero_()
    weights["bert.encoder.layer.1.output.dense.weight"].zero_()
    emptied = with_weights(checkpoint, weights)

    artefact = torch_artefact_from_checkpoint(emptied, tmp_path / "b", precision="fp32")

    sizes = {(m.layer, m.role): m.outputs for m in read_plan(artefact.folder).matrices}
    assert sizes[0, "query"] == sizes[1, "intermediate"] == 0
    assert artefact.manifest.parity.max_difference <= 1e-4


def test_a_matrix_left_dense_goes_along(tmp_path: Path) -> None:
    """Beside block-sparse ones it runs feature-major, and the logits are the checkpoint's."""
    name = "bert.encoder.layer.0.attention.self.key"
    checkpoint = tiny_checkpoint(
        tmp_path / "c", pattern=parse_pattern("block:32x1", 0.75), goals={name: 0.0}
    )

    artefact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a", precision="fp16")

    lowered = {row.name: row.lowering for row in artefact.manifest.matrices}
    assert lowered.pop(name) == "dense"
    assert set(lowered.values()) == {"gathered"}
    assert artefact.manifest.parity.max_difference <= 2e-2


def test_a_lowering_can_be_forced(tmp_path: Path) -> None:
    """For comparison; one that no matrix has is refused."""
    checkpoint, _ = made(tmp_path, "block:32x1", 0.75, "fp16")
    dense, _ = made(tmp_path / "d", None, None, "fp32")

    artefact = torch_artefact_from_checkpoint(
        checkpoint, tmp_path / "b", precision="fp16", lowering="dense"
    )

    assert {row.lowering for row in artefact.manifest.matrices} == {"dense"}
    with pytest.raises(BadSetting, match="can be lowered as gathered"):
        torch_artefact_from_checkpoint(dense, tmp_path / "e", lowering="gathered")


def broken_pattern(weights: dict[str, torch.Tensor]) -> None:
    weight = weights["bert.encoder.layer.1.output.dense.weight"]
    weight[weight == 0] = 0.5


def beyond_fp16(weights: dict[str, torch.Tensor]) -> None:
    weights["bert.encoder.layer.1.output.dense.weight"][0] *= 1e6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(broken_pattern, "does not satisfy"), (beyond_fp16, "not stored as it was")],
)
def test_what_breaks_is_not_written(
    tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    """A pattern that does not hold, a weight that the precision cannot hold; the old one stays."""
    checkpoint, before = made(tmp_path, "block:32x1", 0.75, "fp16")
    weights = load_file(checkpoint.weights)
    spoil(weights)
    content = (before.folder / MANIFEST_FILE).read_text()

    with pytest.raises(VerificationFailed, match=said):
        torch_artefact_from_checkpoint(
            with_weights(checkpoint, weights), tmp_path / "a", precision="fp16", overwrite=True
        )

    assert (before.folder / MANIFEST_FILE).read_text() == content
    open_artefact(before.folder)


def test_lost_parity_is_not_written(
    tmp_path: Path, dense_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that answers otherwise than the checkpoint is not written."""
    monkeypatch.setattr("spd_deploy.sessions.torch_network.network._HIDDEN", 0.0)

    with pytest.raises(VerificationFailed, match="logits"):
        torch_artefact_from_checkpoint(dense_checkpoint, tmp_path / "a")

    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_lost(tmp_path: Path) -> None:
    """Neither an artefact without --overwrite, nor a folder with something else in it."""
    checkpoint, _ = made(tmp_path, None, None, "fp32")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis").write_text("mine")

    with pytest.raises(NotWritten, match="already exists"):
        torch_artefact_from_checkpoint(checkpoint, tmp_path / "a")
    with pytest.raises(NotWritten, match="not an artefact"):
        torch_artefact_from_checkpoint(checkpoint, tmp_path / "own", overwrite=True)


def test_an_artefact_is_no_checkpoint(tmp_path: Path) -> None:
    """Although it has weights under a checkpoint's name; nor is one that lost its manifest."""
    _, artefact = made(tmp_path, None, None, "fp32")

    with pytest.raises(BadCheckpoint, match="exported artefact already"):
        open_checkpoint(artefact.folder)
    (artefact.folder / MANIFEST_FILE).unlink()
    with pytest.raises(BadCheckpoint, match=r"its manifest\.json is missing"):
        open_checkpoint(artefact.folder)


def test_the_manifest_is_json_that_says_what_ran(tmp_path: Path) -> None:
    """Format, precision, runtime, and a reason for each matrix."""
    _, artefact = made(tmp_path, "2:4", None, "bf16")
    value = json.loads((artefact.folder / MANIFEST_FILE).read_text())

    assert (value["format"], value["precision"], value["runtime"]) == ("torch", "bf16", "torch")
    assert all("2:4 tensor cores on CUDA" in row["reason"] for row in value["matrices"])
    assert "torch" in value["versions"]
