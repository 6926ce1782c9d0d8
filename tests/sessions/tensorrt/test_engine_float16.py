"""fp16 between operators: typed as strongly typed networks ask, near the checkpoint, and finite."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.open import difference_between
from spd_deploy.sessions.tensorrt.build_plan import read_plan
from tests.exporters.test_onnx import TENSORRT_OPERATORS
from tests.exporters.test_precisions import kinds_of
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint, with_weights

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
PATTERNS = [None, "2:4", "block:32x1", "structured"]
Made = Callable[[str | None, str], Artefact]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives the artefact of a pattern and an architecture, of four layers; each is made once."""

    @cache
    def made(spelled: str | None, architecture: str) -> Artefact:
        place = tmp_path_factory.mktemp("half")
        pattern = None if spelled is None else parse_pattern(spelled)
        checkpoint = tiny_checkpoint(
            place / "c", architecture=architecture, pattern=pattern, layers=4
        )
        return exported(checkpoint, place / "a")

    return made


@pytest.mark.parametrize("spelled", PATTERNS)
def test_products_are_half_and_norms_and_softmax_single(
    spelled: str | None, tmp_path: Path
) -> None:
    """Attention's products too; ONNX's own inference finds types that fit together everywhere."""
    pattern = None if spelled is None else parse_pattern(spelled)
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern, intermediate=256)
    model = onnx.load(exported(checkpoint, tmp_path / "a").folder / PORTABLE_FILE)

    kinds = kinds_of(model)

    read: dict[str, set[int]] = {}
    for node in model.graph.node:
        inside = node.name.startswith("layer.")
        values = [kinds[name] for name in node.input if kinds.get(name) in (HALF, SINGLE)]
        read.setdefault(f"{node.op_type}{' in a layer' if inside else ''}", set()).update(values)
    assert read["MatMul in a layer"] == {HALF}
    assert read["Erf in a layer"] == {HALF}
    assert read["Softmax in a layer"] == {SINGLE}
    norms = "ReduceMean" if spelled == "block:32x1" else "LayerNormalization"
    assert read[f"{norms} in a layer"] == {SINGLE}
    assert read["Gemm"] == {SINGLE}  # the head
    assert "MatMul" not in read
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS


@pytest.mark.parametrize(
    "architecture",
    ["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert", "deberta-v2"],
)
@pytest.mark.parametrize("spelled", PATTERNS)
def test_logits_are_the_checkpoints(spelled: str | None, architecture: str, half: Made) -> None:
    """In every architecture and pattern, to within what 11 bits a number may make."""
    parity = half(spelled, architecture).manifest.parity

    assert 0 < parity.max_difference < parity.tolerance == 5e-2


def referred(artefact: Artefact) -> NDArray[np.float32]:
    """The golden logits by ONNX's reference implementation, which rounds after each operator."""
    evaluator = ReferenceEvaluator(str(artefact.folder / PORTABLE_FILE))
    batch = artefact.golden().batch
    given = {
        "input_ids": batch.ids_BS,
        "attention_mask": batch.mask_BS,
        "token_type_ids": batch.types_BS,
    }
    (logits_BC,) = evaluator.run(None, given)
    return np.asarray(logits_BC, np.float32)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("spelled", PATTERNS)
def test_rounding_after_each_operator_stays_within_the_tolerance(
    spelled: str | None, architecture: str, half: Made
) -> None:
    """As a GPU does it, and a CPU does not."""
    artefact = half(spelled, architecture)

    difference = difference_between(referred(artefact), artefact.golden().logits_BC)

    assert 0 < difference < artefact.manifest.parity.tolerance


LAYER = "bert.encoder.layer.0"


def test_large_activations_stay_finite(tmp_path: Path) -> None:
    """A residual sum beyond 65504 is no infinity, since it is single until it is normed."""
    checkpoint = tiny_checkpoint(tmp_path / "c")
    weights = load_file(checkpoint.weights)
    weights[f"{LAYER}.attention.output.LayerNorm.bias"][0] = 5e4
    weights[f"{LAYER}.intermediate.dense.weight"][:, 0] = 0  # nothing else reads the large one
    weights[f"{LAYER}.output.dense.bias"][0] = 5e4

    artefact = exported(with_weights(checkpoint, weights), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 2e-2
    assert read_plan(artefact.folder).largest_fp16_activation == pytest.approx(5e4, rel=1e-2)
    assert difference_between(referred(artefact), artefact.golden().logits_BC) < 2e-2


def test_a_product_that_overflows_is_refused(tmp_path: Path) -> None:
    """Above 65504 fp16 has no number; nothing is written, and the error says what to do."""
    checkpoint = tiny_checkpoint(tmp_path / "c")
    weights = load_file(checkpoint.weights)
    weights[f"{LAYER}.intermediate.dense.bias"][:2] = 6e4
    weights[f"{LAYER}.output.dense.weight"][0, :2] = 1

    with pytest.raises(
        VerificationFailed,
        match=r"overflows fp16, .* 65504; got 1.2e\+05 in layer.0",
    ):
        exported(with_weights(checkpoint, weights), tmp_path / "a")

    assert not (tmp_path / "a").exists()
