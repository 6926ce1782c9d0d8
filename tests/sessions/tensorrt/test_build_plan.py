"""The plan of an engine: what is expected of each matrix, and how it is written and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.onnx.storage import read_constants
from exporters.tensorrt.engine_format import two_of_four
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.tensorrt.build_plan import PLAN_FILE, BuildPlan, read_plan, sha256_of_masks
from tests.exporters.test_onnx import TENSORRT_OPERATORS
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint

matrices = st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=4)


@given(matrices)
def test_two_of_four_is_counted_by_brute_force(rows: list[list[bool]]) -> None:
    """No four inputs in a row keep more than two weights."""
    weight_NK = np.array(rows, np.float32)
    expected = all(sum(row[i : i + 4]) <= 2 for row in rows for i in (0, 4))

    assert two_of_four(weight_NK) == expected


def test_a_width_that_four_does_not_divide_is_not_two_of_four() -> None:
    """Zeros or not."""
    assert not two_of_four(np.zeros((8, 6), np.float32))


@pytest.mark.parametrize(
    ("spelled", "eligible", "why"),
    [
        ("2:4", 6, "at most 2 of every 4 inputs are not zero, in fp16"),
        ("1:4", 6, "at most 2 of every 4 inputs are not zero, in fp16"),
        ("4:8", 0, "more than 2 of some 4 inputs are not zero"),
        ("block:16x1", 0, "gathered into dense products"),
        (None, 0, "more than 2 of some 4 inputs are not zero"),
    ],
)
def test_sparse_kernels_are_expected_where_they_can_be(
    spelled: str | None, eligible: int, why: str, tmp_path: Path
) -> None:
    """By what was stored: every matrix of 2:4 and of 1:4, none of the others."""
    pattern = None if spelled is None else parse_pattern(spelled)
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern, layers=1)

    plan = read_plan(exported(checkpoint, tmp_path / "a").folder)

    assert sum(matrix.eligible for matrix in plan.matrices) == eligible
    assert plan.sparse_weights == (eligible > 0)
    assert all(why in matrix.reason for matrix in plan.matrices)


def test_sizes_that_sparse_kernels_do_not_take_are_told(tmp_path: Path) -> None:
    """A head of 3 x 4 makes 12 rows, which is no multiple of 8."""
    checkpoint = tiny_checkpoint(
        tmp_path / "c", pattern=parse_pattern("2:4"), layers=1, hidden=12, heads=3, intermediate=32
    )

    plan = read_plan(exported(checkpoint, tmp_path / "a").folder)

    assert not plan.sparse_weights
    assert {m.reason for m in plan.matrices if m.shape == (12, 12)} == {
        "12 x 12 is not a multiple of 8 x 16, which sparse kernels need"
    }


def test_each_matrix_names_the_node_that_multiplies_it(artefact: Artefact) -> None:
    """One product of the graph each, of another name each, below the layer and role."""
    graph = onnx.load(artefact.folder / PORTABLE_FILE, load_external_data=False).graph
    products = {node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")}

    named = {m.onnx_node: m.name for m in read_plan(artefact.folder).matrices}

    assert len(named) == 6
    assert set(named) < products
    for product, name in named.items():
        assert product.split("/")[0] == "layer.0"
        assert product.split("/")[2] in name.replace("attention.output", "attention_output")


def test_a_block_checkpoint_is_gathered_in_standard_operators(
    block_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Without asking a cost model of a CPU; every operator is one that TensorRT's parser lists."""
    artefact = exported(block_checkpoint, tmp_path / "a")

    graph = onnx.load(artefact.folder / PORTABLE_FILE, load_external_data=False).graph

    assert {row.lowering for row in artefact.manifest.matrices} == {"gathered"}
    assert all("reads only 25% of the inputs" in row.reason for row in artefact.manifest.matrices)
    assert {node.domain for node in graph.node} == {""}
    assert {node.op_type for node in graph.node} <= TENSORRT_OPERATORS


def test_masks_have_one_hash(artefact: Artefact, nm_checkpoint: Checkpoint) -> None:
    """Where zeros are is hashed, not what the weights are; each bit counts, and so does a name."""
    plan = read_plan(artefact.folder)
    constants = read_constants(artefact.folder / PORTABLE_FILE)
    weights = [(m.name, np.asarray(constants[f"{m.name}.weight"])) for m in plan.matrices]
    doubled = [(name, weight_NK * 2) for name, weight_NK in weights]
    name, first_NK = weights[0]
    place = np.argwhere(first_NK)[0]
    pruned_NK = first_NK.copy()
    pruned_NK[tuple(place)] = 0

    assert sha256_of_masks(weights) == plan.masks_sha256
    assert sha256_of_masks(doubled) == plan.masks_sha256
    for other in ((name, pruned_NK), ("another", first_NK), (name, first_NK.reshape(32, -1))):
        assert sha256_of_masks([other, *weights[1:]]) != plan.masks_sha256


def test_a_plan_is_read_strictly(artefact: Artefact) -> None:
    """What was written is read back; what was not is refused, naming the file."""
    value = json.loads((artefact.folder / PLAN_FILE).read_text())
    plan = BuildPlan.from_json(value)
    broken: list[dict[str, Any]] = [
        {**value, "schema": 0},
        {**value, "schema": 1},
        {**value, "buckets": []},
        {**value, "precision": "fp8"},
        {**value, "sparse_weights": False},
        {**value, "options": {**value["options"], "workspace_bytes": 0}},
        {**value, "buckets": [{"batch": 0, "seq": 8}]},
        {**value, "more": 1},
    ]

    assert plan == read_plan(artefact.folder)
    assert json.loads(json.dumps(plan.to_json())) == value
    for other in broken:
        with pytest.raises(BadArtefact):
            BuildPlan.from_json(other)
