"""Artefacts in fp16 and int8: near the checkpoint, smaller, calibrated right, and judged."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from safetensors.torch import load_file

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.onnx.embeddings import WORD_EMBEDDINGS, restored_word_embeddings
from exporters.onnx.storage import read_constants
from exporters.onnx.stored_sizes import bytes_of_matrices, stored_bytes
from exporters.precision import CalibrationSet, Precision
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadArtefact, BadData, BadSetting, VerificationFailed
from spd_deploy.domain.model_config import ACTIVATIONS
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.runtime_choice import Runtime, RuntimeChoice
from spd_deploy.domain.text import Batch, Tokens, pad
from spd_deploy.sessions.onnxruntime import DATA_FILE, MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.open import difference_between, open_path, prove, session_from_artefact
from spd_deploy.sessions.openvino import openvino_core, precisions_of
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession
from tests.exporters.test_onnx import TENSORRT_OPERATORS
from tests.tiny import tiny_checkpoint, with_weights

PATTERNS = [None, "unstructured", "2:4", "block:32x1", "structured"]
every_pattern = pytest.mark.parametrize("spelled", PATTERNS)
Exported = Callable[[str | None, Precision], tuple[Checkpoint, Artefact]]


def made(folder: Path, spelled: str | None) -> Checkpoint:
    pattern = None if spelled is None else parse_pattern(spelled, None)
    return tiny_checkpoint(folder / "c", pattern=pattern, intermediate=256)


def some_batches(checkpoint: Checkpoint, seed: int = 0) -> list[Batch]:
    draw = np.random.default_rng(seed)
    rows = [
        Tokens(
            ids=tuple(draw.integers(1, checkpoint.encoder.vocabulary, n).tolist()), types=(0,) * n
        )
        for n in (3, 9, 17, 32)
    ]
    return [pad(rows, pad_id=0), pad(rows[:1], pad_id=0)]


def calibration_set(checkpoint: Checkpoint, *, max_drop: float) -> CalibrationSet:
    """Judged by how near it is: 1 less the difference of the logits from the checkpoint's."""
    judged = some_batches(checkpoint, seed=1)
    with TorchSession(checkpoint.folder) as session:
        expected = [session.run(batch) for batch in judged]

    def score(session: Session) -> Mapping[str, float | None]:
        found = zip(judged, expected, strict=True)
        return {"near": 1 - max(difference_between(session.run(b), e) for b, e in found)}

    return CalibrationSet(
        batches=some_batches(checkpoint), score=score, metric="near", max_drop=max_drop
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Gives the checkpoint of a pattern and its artefact in a precision, to read; made once."""

    @cache
    def checkpoint_of(spelled: str | None) -> Checkpoint:
        return made(tmp_path_factory.mktemp("precisions"), spelled)

    @cache
    def both(spelled: str | None, precision: Precision) -> tuple[Checkpoint, Artefact]:
        checkpoint = checkpoint_of(spelled)
        judged = calibration_set(checkpoint, max_drop=30) if precision is Precision.INT8 else None
        request = ExportRequest(precision=precision, calibration_set=judged)
        place = checkpoint.folder.parent / precision
        return checkpoint, artefact_from_checkpoint(checkpoint, place, request)

    return both


@every_pattern
def test_fp16_is_near_and_stores_halves(exported: Exported, spelled: str | None) -> None:
    """Every encoder matrix is stored in two bytes a weight, and the logits are the checkpoint's."""
    _, artefact = exported(spelled, Precision.FP16)

    assert artefact.manifest.precision == "fp16"
    assert artefact.manifest.parity.max_difference < 2e-2
    for file in (MODEL_FILE, PORTABLE_FILE):
        constants = read_constants(artefact.folder / file)
        for row in artefact.manifest.matrices:
            assert constants[f"{row.name}.weight"].dtype == np.float16


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("spelled", [None, "block:32x1"])
def test_activations_are_narrow_in_both_layouts(
    tmp_path: Path, spelled: str | None, activation: str
) -> None:
    """In fp16, token-major and feature-major, every activation gives the checkpoint's logits."""
    folder = made(tmp_path, spelled).folder
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"hidden_act": activation}))

    artefact = artefact_from_checkpoint(
        open_checkpoint(folder), tmp_path / "a", ExportRequest(precision=Precision.FP16)
    )

    assert artefact.manifest.parity.max_difference < 2e-2


@every_pattern
def test_int8_is_scored_and_stores_bytes(exported: Exported, spelled: str | None) -> None:
    """Every encoder matrix is stored in one byte a weight; both graphs have their scores."""
    _, artefact = exported(spelled, Precision.INT8)

    assert artefact.manifest.precision == "int8"
    for arm in ("int8", "int8, portable"):
        assert (artefact.manifest.scores[arm]["near"] or 0) > 0.7
    for file in (MODEL_FILE, PORTABLE_FILE):
        constants = read_constants(artefact.folder / file)
        for row in artefact.manifest.matrices:
            assert constants[f"{row.name}.weight"].dtype == np.int8
    with open_path(artefact.folder).session as session:
        assert session.description.precision == "int8"


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
@every_pattern
def test_smaller_portable_graphs_have_standard_operators_alone(
    exported: Exported, spelled: str | None, precision: Precision
) -> None:
    """Operators of opset 17 that TensorRT's parser lists, no others."""
    _, artefact = exported(spelled, precision)

    model = onnx.load(artefact.folder / PORTABLE_FILE)

    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


@every_pattern
def test_the_portable_int8_graph_quantises_as_tensorrt_asks(
    exported: Exported, spelled: str | None
) -> None:
    """Weights and activations are int8, every zero point is 0, and none is read from int32."""
    _, artefact = exported(spelled, Precision.INT8)

    model = onnx.load(artefact.folder / PORTABLE_FILE)

    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    kinds = kinds_of(model)
    written = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    read = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    for node in (*written, *read):
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert {kinds[node.output[0]] for node in written} == {TensorProto.INT8}
    assert {kinds[node.input[0]] for node in read} == {TensorProto.INT8}
    weights = {f"{row.name}.weight" for row in artefact.manifest.matrices}
    assert weights <= {node.input[0] for node in read}  # as stored: an engine folds no reshape
    steps = {node.output[0] for node in read}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    quantised = [node for node in products if steps & set(node.input)]
    assert len(quantised) == len(artefact.manifest.matrices)
    assert all(steps.issuperset(node.input[:2]) for node in quantised)  # nothing lies between


def kinds_of(model: onnx.ModelProto) -> dict[str, int]:
    """The type of each value of a graph, as ONNX infers them."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in graph.value_info} | {
        constant.name: constant.data_type for constant in graph.initializer
    }


@pytest.mark.parametrize("spelled", [None, "block:32x1", "structured"])
def test_int8_runs_in_openvino(exported: Exported, spelled: str | None) -> None:
    """Its products run in int8, with what is around them in fp32, or in bf16 where the CPU can."""
    checkpoint, artefact = exported(spelled, Precision.INT8)
    batch = some_batches(checkpoint)[0]
    wanted = ["int8", "int8+bf16"]
    if "bf16" not in precisions_of(openvino_core()):
        wanted.remove("int8+bf16")

    for precision in wanted:
        asked = RuntimeChoice(runtime="openvino", precision=precision.removeprefix("int8+"))
        with (
            TorchSession(checkpoint.folder) as reference,
            open_path(artefact.folder, runtime_choice=asked).session as session,
        ):
            assert session.description.precision == precision
            assert difference_between(session.run(batch), reference.run(batch)) < 0.3


def test_a_smaller_precision_is_smaller_on_disk(exported: Exported) -> None:
    """fp32, fp16 and int8 of the same matrices and words take 4, 2 and 1 bytes a weight."""
    sizes = {}
    for precision in Precision:
        checkpoint, artefact = exported(None, precision)
        sizes[precision] = (artefact.folder / DATA_FILE).stat().st_size

    weights = sum(m.shape[0] * m.shape[1] for m in checkpoint.encoder.matrices())
    weights += checkpoint.encoder.vocabulary * checkpoint.encoder.hidden
    assert sizes[Precision.FP32] - sizes[Precision.FP16] == pytest.approx(2 * weights, rel=0.02)
    assert sizes[Precision.FP32] - sizes[Precision.INT8] == pytest.approx(3 * weights, rel=0.02)


def test_only_fp32_leaves_single_zeros_out(tmp_path: Path) -> None:
    """At 90 % fp32 stores a value and a position for each tenth weight, the others every weight."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("unstructured", 0.9))
    matrices = tuple(checkpoint.encoder.matrices())
    weights = sum(m.shape[0] * m.shape[1] for m in matrices)
    rows = sum(m.shape[0] for m in matrices)
    expected = {
        Precision.FP32: 0.8 * weights,
        Precision.FP16: 2 * weights,
        Precision.INT8: weights + 4 * rows,  # and the scales
    }

    for precision, size in expected.items():
        judged = calibration_set(checkpoint, max_drop=100) if precision is Precision.INT8 else None
        artefact = artefact_from_checkpoint(
            checkpoint,
            tmp_path / precision,
            ExportRequest(precision=precision, calibration_set=judged),
        )
        for file in (MODEL_FILE, PORTABLE_FILE):
            stored = bytes_of_matrices(artefact.folder / file, [m.name for m in matrices])
            assert sum(stored.values()) == pytest.approx(size, rel=0.01)


def test_int8_that_costs_too_much_is_not_written(tmp_path: Path) -> None:
    """A drop beyond what is allowed is refused, with both scores, and nothing is left."""
    checkpoint = made(tmp_path, "2:4")

    with pytest.raises(VerificationFailed, match="int8 costs more near than allowed"):
        artefact_from_checkpoint(
            checkpoint,
            tmp_path / "a",
            ExportRequest(
                precision=Precision.INT8, calibration_set=calibration_set(checkpoint, max_drop=0.0)
            ),
        )

    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("file", [MODEL_FILE, PORTABLE_FILE])
def test_words_are_stored_in_int8_to_half_a_step(exported: Exported, file: str) -> None:
    """Each row of the table has a scale, and no number is off by more than half of it."""
    checkpoint, artefact = exported("block:32x1", Precision.INT8)
    words_VH = load_file(checkpoint.weights)["bert.embeddings.word_embeddings.weight"].numpy()

    constants = read_constants(artefact.folder / file)

    assert constants[WORD_EMBEDDINGS].dtype == np.int8
    assert constants[WORD_EMBEDDINGS].shape == words_VH.shape
    step_V1 = np.abs(words_VH).max(1, keepdims=True) / 127
    assert (np.abs(restored_word_embeddings(constants) - words_VH) <= 0.5001 * step_V1).all()


def test_words_that_cost_too_much_in_int8_stay_fp32(tmp_path: Path) -> None:
    """Where one number dwarfs the rest of each row, the table is fp32 and the matrices int8."""
    plain = made(tmp_path, None)
    tensors = load_file(plain.weights)
    name = "bert.embeddings.word_embeddings.weight"
    words_VH = tensors[name].clone()
    words_VH[:, 0] = 300.0
    scale_H = tensors["bert.embeddings.LayerNorm.weight"].clone() * 1000.0
    scale_H[0] = 0.0
    norm = {"bert.embeddings.LayerNorm.weight": scale_H}
    checkpoint = with_weights(plain, {**tensors, name: words_VH, **norm})

    artefact = artefact_from_checkpoint(
        checkpoint,
        tmp_path / "a",
        ExportRequest(
            precision=Precision.INT8, calibration_set=calibration_set(checkpoint, max_drop=8)
        ),
    )

    constants = read_constants(artefact.folder / MODEL_FILE)
    assert constants[WORD_EMBEDDINGS].dtype == np.float32
    assert {constants[f"{row.name}.weight"].dtype for row in artefact.manifest.matrices} == {
        np.dtype(np.int8)
    }


def test_what_is_stored_adds_up(exported: Exported) -> None:
    """Matrices, embeddings and the rest are all that the constants take, in each precision."""
    for precision in Precision:
        _, artefact = exported("block:32x1", precision)
        file = artefact.folder / MODEL_FILE
        found = stored_bytes(file, [row.name for row in artefact.manifest.matrices])

        total = sum(constant.nbytes for constant in read_constants(file).values())
        assert found.matrices + found.embeddings + found.rest == total
        assert found.word_embeddings == precision


@pytest.mark.parametrize("points", range(1, 100))
def test_a_drop_as_large_as_allowed_is_allowed(points: int) -> None:
    """However the scores round as floats, a whole point is one point; a tenth more is too much."""
    judge = CalibrationSet(batches=[], score=lambda _: {}, metric="near", max_drop=1.0)

    assert judge.allows({"near": points / 100}, {"near": (points - 1) / 100})
    assert not judge.allows({"near": points / 100}, {"near": (points - 1.1) / 100})


def test_int8_needs_texts(tmp_path: Path) -> None:
    """Without data, or with none in it, it is refused before anything is written."""
    checkpoint = made(tmp_path, None)
    empty = CalibrationSet(batches=[], score=lambda _: {}, metric="near", max_drop=1)

    with pytest.raises(BadSetting, match="needs texts to calibrate on"):
        artefact_from_checkpoint(
            checkpoint, tmp_path / "a", ExportRequest(precision=Precision.INT8)
        )
    with pytest.raises(BadData, match="no texts to calibrate"):
        artefact_from_checkpoint(
            checkpoint,
            tmp_path / "a",
            ExportRequest(precision=Precision.INT8, calibration_set=empty),
        )


def test_an_fp16_artefact_runs_by_its_tolerance(tmp_path: Path) -> None:
    """Opening it tests it against the checkpoint's logits as fp16 allows, and it answers."""
    checkpoint = made(tmp_path, "block:32x1")
    artefact = artefact_from_checkpoint(
        checkpoint, tmp_path / "a", ExportRequest(precision=Precision.FP16)
    )
    batch = some_batches(checkpoint)[0]

    with (
        TorchSession(checkpoint.folder) as reference,
        OnnxSession(artefact.folder / PORTABLE_FILE, precision="fp16") as session,
    ):
        assert difference_between(session.run(batch), reference.run(batch)) < 2e-2


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_is_held_to_what_it_gave_itself(tmp_path: Path, runtime: Runtime) -> None:
    """However far from the checkpoint, it passes in each runtime; another bias does not."""
    coarse = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("block:32x1", 0.75))
    lax = calibration_set(coarse, max_drop=1000)
    artefact = artefact_from_checkpoint(
        coarse, tmp_path / "a", ExportRequest(precision=Precision.INT8, calibration_set=lax)
    )
    tensors = load_file(coarse.folder / WEIGHTS_FILE)
    name = "classifier.bias"
    other = with_weights(coarse, {**tensors, name: tensors[name] + 0.5})
    wrong = artefact_from_checkpoint(
        other, tmp_path / "b", ExportRequest(precision=Precision.INT8, calibration_set=lax)
    )

    with session_from_artefact(artefact, runtime=runtime) as session:
        assert prove(session, artefact) <= artefact.manifest.parity.max_difference + 0.05
        with pytest.raises(BadArtefact, match="the logits it gave when it was exported"):
            prove(session, wrong)
