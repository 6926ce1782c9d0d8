"""Biases by relative position, in graphs and in the torch artefact, against Transformers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from exporters.export import artefact_from_checkpoint
from exporters.onnx.attention_bias import POSITION_BIAS
from exporters.onnx.storage import read_constants
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession
from tests.tiny import tiny_checkpoint

# Longer than the distance from which on all share a bucket.
POSITIONS = 300
SPELLED = [None, "structured", "block:32x1", "2:4", "unstructured"]


def checkpoint_of(folder: Path, spelled: str | None, layers: int = 3) -> Checkpoint:
    sparsity = None if spelled in (None, "2:4") else 0.6
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    return tiny_checkpoint(
        folder,
        architecture="mpnet",
        pattern=pattern,
        layers=layers,
        positions=POSITIONS,
        max_tokens=POSITIONS,
    )


def batches(checkpoint: Checkpoint) -> list[Batch]:
    """One token; the longest text; rows of unlike lengths, with padding's id among the tokens."""
    draw = np.random.default_rng(0)
    found = []
    for lengths in ((1,), (POSITIONS,), (3, 150, 1, 40), (POSITIONS, 2)):
        size = (len(lengths), max(lengths))
        mask_BS = (np.arange(size[1]) < np.array(lengths)[:, None]).astype(np.int64)
        ids_BS = draw.integers(0, checkpoint.encoder.vocabulary, size)
        ids_BS = np.where(mask_BS, ids_BS, 1)
        found.append(Batch(ids_BS=ids_BS, mask_BS=mask_BS, types_BS=np.zeros(size, np.int64)))
    return found


def run(session: Session, given: list[Batch]) -> list[NDArray[np.float32]]:
    with session:
        return [session.run(batch) for batch in given]


@pytest.mark.parametrize("spelled", SPELLED)
def test_every_runtime_gives_transformers_logits(tmp_path: Path, spelled: str | None) -> None:
    """Both graphs by both runtimes, and the torch artefact, at all lengths and distances."""
    checkpoint = checkpoint_of(tmp_path / "c", spelled)
    given = batches(checkpoint)
    expected = run(TorchSession(checkpoint.folder), given)

    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "onnx")
    torch_artefact = torch_artefact_from_checkpoint(
        checkpoint, tmp_path / "torch", precision="fp32"
    )

    portable = artefact.folder / PORTABLE_FILE
    sessions: dict[str, Session] = {
        "onnxruntime": OnnxSession(artefact.folder / MODEL_FILE, precision="fp32"),
        "portable": OnnxSession(portable, precision="fp32"),
        "openvino": OpenVinoSession(portable, precision="fp32", positions=POSITIONS),
        "torch": session_from_artefact(torch_artefact),
    }
    for name, session in sessions.items():
        for found, wanted in zip(run(session, given), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_biases_matter(tmp_path: Path) -> None:
    """Without them the logits are others, so that the parity of the tests above means something."""
    checkpoint = checkpoint_of(tmp_path / "c", None)
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")
    file = artefact.folder / MODEL_FILE
    given = batches(checkpoint)
    before = run(OnnxSession(file, precision="fp32"), given)

    model = onnx.load(file)
    (table,) = (c for c in model.graph.initializer if c.name == POSITION_BIAS)
    zeros = np.zeros(tuple(table.dims), np.float32)
    table.CopyFrom(onnx.numpy_helper.from_array(zeros, POSITION_BIAS))
    onnx.save(model, tmp_path / "without.onnx")

    after = run(OnnxSession(tmp_path / "without.onnx", precision="fp32"), given)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(after[1:], before[1:], strict=True))


def test_the_graph_holds_kept_heads_only(tmp_path: Path) -> None:
    """The table has a row for each head that some layer keeps, and is looked up once."""
    checkpoint = checkpoint_of(tmp_path / "c", "structured", layers=1)

    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    constants = read_constants(artefact.folder / MODEL_FILE)
    kept = next(r for r in artefact.manifest.matrices if r.name.endswith("attn.q"))
    heads = round(kept.density * checkpoint.encoder.heads)
    assert constants[POSITION_BIAS].shape == (heads, 2 * POSITIONS - 1)
    assert 0 < heads < checkpoint.encoder.heads


def test_pairs_are_looked_up_once(tmp_path: Path) -> None:
    """However many layers there are, one operator spreads the biases over the pairs of tokens."""
    checkpoint = checkpoint_of(tmp_path / "c", None, layers=5)

    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    nodes = onnx.load(artefact.folder / MODEL_FILE, load_external_data=False).graph.node
    readers = [node.op_type for node in nodes if POSITION_BIAS in node.input]
    assert sorted(readers) == ["Gather", "Slice"]


@pytest.mark.parametrize("file", [MODEL_FILE, PORTABLE_FILE])
def test_pairs_are_looked_up_when_the_graph_is_loaded(tmp_path: Path, file: str) -> None:
    """ONNX Runtime runs no operator that spreads the biases over the pairs."""
    checkpoint = checkpoint_of(tmp_path / "c", None)
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")

    onnxruntime.InferenceSession(artefact.folder / file, options)

    nodes = onnx.load(tmp_path / "loaded.onnx", load_external_data=False).graph.node
    readers = [node.op_type for node in nodes if POSITION_BIAS in node.input]
    assert readers == ["Slice"]
