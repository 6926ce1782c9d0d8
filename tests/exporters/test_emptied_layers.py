"""Layers that keep no head, no neuron, or neither: exported in every form, with the model's logits.

The oracle is the checkpoint in Transformers, whose matrices of zeros leave biases and residuals.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import CalibrationSet, Precision
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.models.architecture import FEED_FORWARD
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession
from tests.tiny import tiny_checkpoint, weights_of, with_weights

# For each layer: are its heads removed, are its neurons.
EMPTIED = {
    "a layer of each kind": ((True, False), (False, True), (True, True)),
    "the last without heads": ((False, False), (True, True), (True, False)),
    "the last without neurons": ((True, True), (False, False), (False, True)),
    "nothing left": ((True, True), (True, True), (True, True)),
}
PATTERNS = {"structured": 0.5, "block:32x1": 0.75}
BATCH = random_batch(Shape(batch=5, seq=17), 50, np.random.default_rng(4))
BATCH.mask_BS[1::2, 9:] = 0


def emptied(folder: Path, name: str, pattern: Pattern, architecture: str = "bert") -> Checkpoint:
    """A checkpoint whose layers lost what ``EMPTIED`` says; other layers keep a part."""
    checkpoint = tiny_checkpoint(folder, architecture=architecture, pattern=pattern, layers=3)
    weights = weights_of(checkpoint)
    for matrix in checkpoint.encoder.matrices():
        heads, neurons = EMPTIED[name][matrix.layer]
        if neurons if matrix.role in FEED_FORWARD else heads:
            weights[matrix.weight_name] = torch.zeros_like(weights[matrix.weight_name])
    return with_weights(checkpoint, weights)


def expected(checkpoint: Checkpoint) -> np.ndarray:
    with TorchSession(checkpoint.folder) as session:
        return session.run(BATCH)


def logits(session: Session) -> np.ndarray:
    with session:
        return session.run(BATCH)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A checkpoint with emptied layers, and its logits in Transformers."""

    name: str
    architecture: str
    checkpoint: Checkpoint
    wanted_BC: np.ndarray


# Graphs differ by the layers that are empty and by the architecture. A pattern decides on the
# layout of activations: both meet each empty layer and each architecture.
CASES = [
    *product(["structured"], EMPTIED, ("bert", "mpnet", "modernbert", "deberta-v2")),
    *product(["block:32x1"], EMPTIED, ("bert",)),
    *product(["block:32x1"], ["a layer of each kind"], ("mpnet", "modernbert", "deberta-v2")),
]


@pytest.fixture(scope="module", params=CASES, ids=", ".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Every architecture of a kind, with every pattern that removes parts."""
    spelled, name, architecture = request.param
    pattern = parse_pattern(spelled, PATTERNS[spelled])
    checkpoint = emptied(tmp_path_factory.mktemp("emptied") / "c", name, pattern, architecture)
    return Case(
        name=name,
        architecture=architecture,
        checkpoint=checkpoint,
        wanted_BC=expected(checkpoint),
    )


def test_an_emptied_layer_gives_the_models_logits(tmp_path: Path, case: Case) -> None:
    """In ONNX Runtime's graph and in the portable one, by both runtimes, and in PyTorch."""
    artefact = artefact_from_checkpoint(case.checkpoint, tmp_path / "onnx")
    torch_artefact = torch_artefact_from_checkpoint(
        case.checkpoint, tmp_path / "torch", precision="fp32"
    )

    model = artefact.folder / MODEL_FILE
    portable = artefact.folder / PORTABLE_FILE
    found = {
        "onnxruntime": logits(OnnxSession(model, precision="fp32", threads=1)),
        "portable": logits(OnnxSession(portable, precision="fp32", threads=1)),
        "openvino": logits(OpenVinoSession(portable, precision="fp32", positions=64, threads=1)),
        "torch": logits(session_from_artefact(torch_artefact, threads=1)),
    }
    for where, logits_BC in found.items():
        np.testing.assert_allclose(logits_BC, case.wanted_BC, atol=1e-4, rtol=1e-4, err_msg=where)
    _refuse_stored(artefact, case.name)


def _refuse_stored(artefact: Artefact, name: str) -> None:
    """What was removed does no multiplications."""
    for row, part in product(artefact.manifest.matrices, ("attention", "output", "intermediate")):
        layer = int(next(part for part in row.name.split(".") if part.isdigit()))
        inner = ".attention." not in row.name
        if part in row.name and EMPTIED[name][layer][1 if inner else 0]:
            assert row.flops_share == 0


def test_an_emptied_layer_gives_them_in_int8(tmp_path: Path, case: Case) -> None:
    """Near the model's logits, as int8 is, in both graphs and both runtimes."""
    calibration = CalibrationSet(
        batches=(BATCH,), score=lambda session: {"accuracy": 1.0}, metric="accuracy", max_drop=1.0
    )

    artefact = artefact_from_checkpoint(
        case.checkpoint,
        tmp_path / "a",
        ExportRequest(precision=Precision.INT8, calibration_set=calibration),
    )

    found = {
        runtime: logits(session_from_artefact(artefact, runtime=runtime, threads=1))
        for runtime in ("onnxruntime", "openvino")
    }
    # Each score of disentangled attention is a sum of three, two of them of rounded numbers.
    near = 0.15 if case.architecture == "deberta-v2" else 0.1
    wanted_BC = case.wanted_BC
    for where, logits_BC in found.items():
        assert np.abs(logits_BC - wanted_BC).max() < near * max(1, np.abs(wanted_BC).max()), where
    open_artefact(artefact.folder)
