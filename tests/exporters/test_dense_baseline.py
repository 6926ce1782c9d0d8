"""The dense baseline: the checkpoint's shapes, a dense export's graph, and numbers that run."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from exporters.classifier_weights import read_weights
from exporters.dense_baseline import dense_baseline_weights, write_dense_baseline
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Block, Pattern, Structured, Unstructured
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from tests.tiny import tiny_checkpoint

Exported = tuple[Checkpoint, Artefact, Path]
CASES: list[tuple[str, Pattern]] = [
    ("bert", Block(rows=32, columns=1, sparsity=0.75)),
    ("roberta", Structured(sparsity=0.5)),
    ("distilbert", Unstructured(sparsity=0.9)),
    ("electra", Block(rows=32, columns=1, sparsity=0.75)),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A sparse checkpoint, its artefact, and a folder with the dense artefact of the same sizes."""
    architecture, pattern = request.param
    folder = tmp_path_factory.mktemp("baseline")
    dense = tiny_checkpoint(folder / "dense-c", architecture=architecture)
    artefact_from_checkpoint(dense, folder / "dense")
    sparse = tiny_checkpoint(folder / "sparse-c", architecture=architecture, pattern=pattern)
    return sparse, artefact_from_checkpoint(sparse, folder / "sparse"), folder / "dense"


def test_the_baseline_has_the_checkpoints_shapes(exported: Exported) -> None:
    """Each tensor that the graph needs has the shape that the checkpoint's has."""
    checkpoint, artefact, _ = exported
    shapes = {name: t.shape for name, t in read_weights(checkpoint).tensors.items()}

    baseline = {name: t.shape for name, t in dense_baseline_weights(artefact).tensors.items()}

    assert baseline == {name: shapes[name] for name in baseline}
    assert not {m.weight_name for m in checkpoint.encoder.matrices()} - set(baseline)


def test_the_baselines_graph_is_that_of_a_dense_export(exported: Exported, tmp_path: Path) -> None:
    """Node for node, it is the graph of a dense checkpoint of the same sizes."""
    _, artefact, dense = exported

    baseline = onnx.load(write_dense_baseline(artefact, tmp_path), load_external_data=False)

    expected = onnx.load(dense / MODEL_FILE, load_external_data=False)
    assert [(n.name, n.op_type) for n in baseline.graph.node] == [
        (n.name, n.op_type) for n in expected.graph.node
    ]


def test_the_baseline_runs(exported: Exported, tmp_path: Path) -> None:
    """Its logits are numbers that depend on the row, as many as the task has classes."""
    _, artefact, _ = exported
    golden = artefact.golden()

    with OnnxSession(
        write_dense_baseline(artefact, tmp_path), precision="fp32", threads=1
    ) as session:
        logits_BC = session.run(golden.batch)

    assert logits_BC.shape == golden.logits_BC.shape
    assert np.isfinite(logits_BC).all()
    assert (np.ptp(logits_BC, axis=0) > 0).all()
