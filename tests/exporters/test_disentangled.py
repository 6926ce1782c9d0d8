"""Disentangled attention, in graphs and in the torch artefact, against Transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from exporters.export import artefact_from_checkpoint
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

# Longer than the distance from which on all share a row.
POSITIONS = 100
SPELLED = ["structured", "block:32x1", "2:4", "unstructured"]
VARIANTS: dict[str, dict[str, Any]] = {
    "both": {},
    "queries": {"pos_att_type": "c2p"},
    "keys, each distance": {
        "pos_att_type": ["p2c"],
        "position_buckets": -1,
        "max_relative_positions": 12,
    },
    "types": {"type_vocab_size": 2, "norm_rel_ebd": "none"},
    "far": {"max_relative_positions": 300, "position_buckets": 32},
}


def checkpoint_of(folder: Path, spelled: str | None, **fields: Any) -> Checkpoint:
    sparsity = None if spelled in (None, "2:4") else 0.6
    return tiny_checkpoint(
        folder,
        architecture="deberta-v2",
        pattern=None if spelled is None else parse_pattern(spelled, sparsity),
        layers=3,
        positions=POSITIONS,
        max_tokens=POSITIONS,
        **fields,
    )


def batches(checkpoint: Checkpoint, types: int = 1) -> list[Batch]:
    """One token; the longest text; rows of unlike lengths."""
    draw = np.random.default_rng(0)
    found = []
    for lengths in ((1,), (POSITIONS,), (3, 50, 1, 40), (POSITIONS, 2)):
        size = (len(lengths), max(lengths))
        mask_BS = (np.arange(size[1]) < np.array(lengths)[:, None]).astype(np.int64)
        ids_BS = np.where(mask_BS, draw.integers(0, checkpoint.encoder.vocabulary, size), 0)
        types_BS = draw.integers(0, types, size) * mask_BS
        found.append(Batch(ids_BS=ids_BS, mask_BS=mask_BS, types_BS=types_BS))
    return found


def run(session: Session, given: list[Batch]) -> list[NDArray[np.float32]]:
    with session:
        return [session.run(batch) for batch in given]


def assert_every_runtime_agrees(checkpoint: Checkpoint, folder: Path, given: list[Batch]) -> None:
    expected = run(TorchSession(checkpoint.folder), given)
    artefact = artefact_from_checkpoint(checkpoint, folder / "onnx")
    in_torch = torch_artefact_from_checkpoint(checkpoint, folder / "torch", precision="fp32")
    portable = artefact.folder / PORTABLE_FILE
    sessions: dict[str, Session] = {
        "onnxruntime": OnnxSession(artefact.folder / MODEL_FILE, precision="fp32"),
        "portable": OnnxSession(portable, precision="fp32"),
        "openvino": OpenVinoSession(portable, precision="fp32", positions=POSITIONS),
        "torch": session_from_artefact(in_torch),
    }
    for name, session in sessions.items():
        for found, wanted in zip(run(session, given), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("spelled", SPELLED)
def test_every_runtime_gives_transformers_logits(tmp_path: Path, spelled: str) -> None:
    """Both graphs by both runtimes, and the torch artefact, at all lengths and distances."""
    checkpoint = checkpoint_of(tmp_path / "c", spelled)

    assert_every_runtime_agrees(checkpoint, tmp_path, batches(checkpoint))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_positions_is_transformers(tmp_path: Path, variant: str) -> None:
    """One term or two, buckets or a row for each distance, with a norm or without, with types."""
    fields = VARIANTS[variant]
    checkpoint = checkpoint_of(tmp_path / "c", None, **fields)
    given = batches(checkpoint, types=fields.get("type_vocab_size", 1))

    assert_every_runtime_agrees(checkpoint, tmp_path, given)


@pytest.mark.parametrize("file", [MODEL_FILE, PORTABLE_FILE])
def test_positions_are_projected_before_a_run(tmp_path: Path, file: str) -> None:
    """ONNX Runtime looks up nothing but embeddings, first tokens and axes when it runs."""
    artefact = artefact_from_checkpoint(checkpoint_of(tmp_path / "c", None), tmp_path / "a")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")

    onnxruntime.InferenceSession(artefact.folder / file, options)

    nodes = onnx.load(tmp_path / "loaded.onnx", load_external_data=False).graph.node
    assert not [n.name for n in nodes if n.op_type == "GatherElements"]
    assert not [n.name for n in nodes if n.op_type == "Gather" and "positions" in n.name]
    assert [n.name for n in nodes if n.op_type == "Slice" and "positions" in n.name]
