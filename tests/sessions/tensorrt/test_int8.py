"""int8 trt artefacts: calibrated, judged by the task, in Q/DQ as TensorRT's parser asks."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.open import open_path
from spd_deploy.sessions.tensorrt.build_plan import read_plan
from tests.exporters.test_onnx import TENSORRT_OPERATORS
from tests.exporters.test_precisions import calibration_set, kinds_of
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint


def test_an_int8_artefact_is_symmetric_and_keeps_its_zeros(
    nm_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Its matrices are eligible in int8, every zero point is 0, and it has its own score."""
    judged = calibration_set(nm_checkpoint, max_drop=30)
    artefact = exported(
        nm_checkpoint, tmp_path / "a", precision=Precision.INT8, calibration_set=judged
    )

    plan = read_plan(artefact.folder)
    model = onnx.load(artefact.folder / PORTABLE_FILE)

    assert plan.precision == "int8" and 0 < plan.largest_fp16_activation < 65504
    assert all(matrix.eligible for matrix in plan.matrices)
    assert set(artefact.manifest.scores) == {"dense", "sparse", "fp32", "int8"}
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear")
    quantisers = [node for node in model.graph.node if node.op_type in kinds]
    assert len(quantisers) > len(plan.matrices)
    for node in quantisers:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    with open_path(
        artefact.folder, runtime_choice=RUNTIME_CHOICES["onnxruntime"]
    ).session as session:
        assert session.description.precision == "int8"


HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.mark.parametrize("spelled", ["2:4", "block:16x1"])
def test_what_is_not_quantised_is_half(spelled: str, tmp_path: Path) -> None:
    """Attention's products and the activation; softmax and norms are single, as in fp16."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern(spelled))
    judged = calibration_set(checkpoint, max_drop=100)
    made = exported(checkpoint, tmp_path / "a", precision=Precision.INT8, calibration_set=judged)
    model = onnx.load(made.folder / PORTABLE_FILE)
    kinds = kinds_of(model)

    read = {
        node.name: {kinds[name] for name in node.input if kinds.get(name) in (HALF, SINGLE)}
        for node in model.graph.node
    }
    inside = {name: types for name, types in read.items() if name.startswith("layer.")}
    assert [types for name, types in inside.items() if "product/MatMul" in name] == [{HALF}] * 4
    assert [types for name, types in inside.items() if name.endswith("Erf")] == [{HALF}] * 2
    norms = "/ReduceMean" if spelled.startswith("block") else "/LayerNormalization"
    for kind in (norms, "/Softmax", "/QuantizeLinear"):
        assert {frozenset(types) for name, types in inside.items() if kind in name} == {
            frozenset({SINGLE})
        }
