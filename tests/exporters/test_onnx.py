"""Exported artefacts: the checkpoint's logits, its weights, and nothing half-written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from exporters.export import artefact_from_checkpoint
from exporters.onnx.storage import read_constants
from exporters.onnx.stored_sizes import bytes_of_matrices
from exporters.parity import golden_rows
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import (
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
)
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import Structured, parse_pattern
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.onnxruntime import DATA_FILE, MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.torch import TorchSession
from tests.tiny import tiny_checkpoint, tiny_model, with_weights

KINDS = [
    (None, None, {}),
    ("unstructured", 0.9, {}),
    ("2:4", None, {"layers": 1}),
    ("block:32x1", 0.75, {}),
    ("block:32x1", 0.9, {"layers": 1, "hidden": 32, "heads": 2}),
    ("block:32x4", 0.75, {"intermediate": 192}),
    ("structured", 0.5, {}),
    ("structured", 0.75, {"heads": 8, "layers": 3}),
]
# What these graphs use of the operators that NVIDIA publishes as supported by its ONNX parser
# (onnx-tensorrt, docs/operators.md, release 10.x).
# fmt: off
TENSORRT_OPERATORS = {
    "Add", "Cast", "Concat", "ConstantOfShape", "Conv", "CumSum", "DequantizeLinear", "Equal",
    "Erf", "Gather", "Gemm", "Identity", "LayerNormalization", "MatMul", "Mul", "Not",
    "QuantizeLinear", "Reciprocal", "ReduceMean", "Relu", "Reshape", "ScatterElements", "Shape",
    "Slice", "Softmax", "Sqrt", "Sub", "Tanh", "Transpose", "Unsqueeze"
}
# fmt: on
every_kind = pytest.mark.parametrize(
    ("spelled", "sparsity", "sizes"), KINDS, ids=lambda value: str(value)
)


def made(
    folder: Path, spelled: str | None, sparsity: float | None, **sizes: Any
) -> tuple[Checkpoint, Artefact]:
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    checkpoint = tiny_checkpoint(
        folder / "c", pattern=pattern, task="sst2", seed=3, max_tokens=32, **sizes
    )
    return checkpoint, artefact_from_checkpoint(checkpoint, folder / "a")


@pytest.mark.parametrize("file", [MODEL_FILE, PORTABLE_FILE])
@every_kind
def test_an_artefact_gives_its_checkpoints_logits(
    tmp_path: Path, spelled: str | None, sparsity: float | None, sizes: dict[str, int], file: str
) -> None:
    """At any batch and any length from 1 to the longest, padded or alone."""
    checkpoint, artefact = made(tmp_path, spelled, sparsity, **sizes)
    draw = np.random.default_rng(1)

    with (
        TorchSession(checkpoint.folder) as torch_session,
        OnnxSession(artefact.folder / file, precision="fp32") as session,
    ):
        for lengths in ((1,), (2, 1), (64,), (5, 64, 17), (9,) * 8):
            rows = [
                Tokens(
                    ids=tuple(draw.integers(1, checkpoint.encoder.vocabulary, n).tolist()),
                    types=(0,) * (n // 2) + (1,) * (n - n // 2),
                )
                for n in lengths
            ]
            expected = torch_session.run(pad(rows, pad_id=0))
            together = session.run(pad(rows, pad_id=0))
            alone = np.concatenate([session.run(pad([row], pad_id=0)) for row in rows])
            np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)


@every_kind
def test_the_manifest_tells_the_truth(
    tmp_path: Path, spelled: str | None, sparsity: float | None, sizes: dict[str, int]
) -> None:
    """Densities and shares are those of the weights, and the stored constants are no more."""
    checkpoint, artefact = made(tmp_path, spelled, sparsity, **sizes)
    constants = read_constants(artefact.folder / MODEL_FILE)
    weights = load_file(checkpoint.weights)

    for row in artefact.manifest.matrices:
        weight = weights[f"{row.name}.weight"]
        assert row.shape == tuple(weight.shape)
        assert row.density == pytest.approx(float((weight != 0).float().mean()))
        stored = constants[f"{row.name}.weight"]
        kept = row.density if spelled == "unstructured" else row.flops_share
        assert stored.size == pytest.approx(kept * weight.numel())
    assert artefact.manifest.parity.max_difference <= artefact.manifest.parity.tolerance
    assert artefact.manifest.checkpoint_sha256 == sha256_of(checkpoint.weights)


@every_kind
def test_the_portable_graph_has_standard_operators_alone(
    tmp_path: Path, spelled: str | None, sparsity: float | None, sizes: dict[str, int]
) -> None:
    """It runs wherever ONNX does: operators of opset 17 that TensorRT's parser lists, no others."""
    _, artefact = made(tmp_path, spelled, sparsity, **sizes)

    model = onnx.load(artefact.folder / PORTABLE_FILE)

    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} <= TENSORRT_OPERATORS
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    dims = [d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim]
    assert set(dims) == {"batch", "sequence"}


def test_weights_are_stored_once(tmp_path: Path) -> None:
    """The files hold each constant once, and a sparse artefact is smaller than a dense one."""
    checkpoint, dense = made(tmp_path / "dense", None, None)
    _, sparse = made(tmp_path / "sparse", "block:32x1", 0.9)

    parameters = sum(t.numel() * t.element_size() for t in load_file(checkpoint.weights).values())
    data = (dense.folder / DATA_FILE).stat().st_size
    inline = (dense.folder / MODEL_FILE).stat().st_size

    assert data + inline < 1.2 * parameters
    assert (sparse.folder / DATA_FILE).stat().st_size < 0.5 * data


def test_other_tokenizers_cut_where_ours_does(tmp_path: Path) -> None:
    """Transformers' tokenizer cuts at the checkpoint's longest text, as it says nowhere else."""
    checkpoint, artefact = made(tmp_path, None, None)

    found = AutoTokenizer.from_pretrained(artefact.folder)

    assert found.model_max_length == checkpoint.max_tokens == 32


@every_kind
def test_matrices_take_what_is_kept_of_them(
    tmp_path: Path, spelled: str | None, sparsity: float | None, sizes: dict[str, int]
) -> None:
    """The bytes told of the matrices are those of their constants, counted from the arrays."""
    _, artefact = made(tmp_path, spelled, sparsity, **sizes)
    file = artefact.folder / MODEL_FILE
    names = [row.name for row in artefact.manifest.matrices]

    found = bytes_of_matrices(file, names)

    constants = read_constants(file)
    for name in names:
        of = [value.nbytes for key, value in constants.items() if key.startswith(f"{name}.")]
        assert found[name] == sum(of)
    dense = sum(4 * row.shape[0] * row.shape[1] for row in artefact.manifest.matrices)
    if spelled in ("unstructured", "block:32x1", "structured"):
        assert sum(found.values()) < 0.6 * dense


def test_whole_heads_and_layers_may_be_gone(tmp_path: Path) -> None:
    """A layer whose every head is zero still gives the checkpoint's logits."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))
    weights = load_file(checkpoint.weights)
    for name in list(weights):
        if ".layer.0.attention." in name and name.endswith(
            (".query.weight", ".key.weight", ".value.weight", ".dense.weight")
        ):
            weights[name].zero_()

    artefact = artefact_from_checkpoint(with_weights(checkpoint, weights), tmp_path / "a")

    gone = [row for row in artefact.manifest.matrices if "layer.0.attention" in row.name]
    assert {row.flops_share for row in gone} == {0.0}


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [("unstructured", "compact"), ("2:4", "compact"), ("block:32x1", "compact, gathered")],
)
def test_dead_neurons_go_in_every_pattern(tmp_path: Path, spelled: str, expected: str) -> None:
    """Neurons that no weight makes or reads are gone, and what is left is lowered as ever."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern(spelled, None))
    weights = load_file(checkpoint.weights)
    weights["bert.encoder.layer.0.intermediate.dense.weight"][32:96] = 0
    weights["bert.encoder.layer.0.output.dense.weight"][:, 32:96] = 0

    artefact = artefact_from_checkpoint(with_weights(checkpoint, weights), tmp_path / "a")

    rows = {row.name: row for row in artefact.manifest.matrices}
    for name in ("intermediate", "output"):
        row = rows[f"bert.encoder.layer.0.{name}.dense"]
        assert row.lowering == expected
        assert row.reason.startswith("64 of 128 neurons are left")
    assert rows["bert.encoder.layer.1.output.dense"].lowering == expected.removeprefix(
        "compact, "
    ).replace("compact", "dense")


def test_a_neuron_goes_only_where_all_of_it_is_zero(tmp_path: Path) -> None:
    """A row that nothing reads stays, since an artefact holds its checkpoint's weights."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))
    weights = load_file(checkpoint.weights)
    read = weights["bert.encoder.layer.0.output.dense.weight"]
    column = int(read.abs().sum(0).argmax())
    read[:, column] = 0

    artefact = artefact_from_checkpoint(with_weights(checkpoint, weights), tmp_path / "a")

    shares = {row.name: row.flops_share for row in artefact.manifest.matrices}
    assert shares["bert.encoder.layer.0.intermediate.dense"] == 0.5
    assert shares["bert.encoder.layer.0.output.dense"] == 0.5


def test_a_model_without_pairs_is_exported(tmp_path: Path) -> None:
    """A model of one token type is checked on single texts only."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    weights = load_file(folder / WEIGHTS_FILE)
    name = "bert.embeddings.token_type_embeddings.weight"
    weights[name] = weights[name][:1].clone()
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert not artefact.golden().batch.types_BS.any()


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu"])
def test_other_activations_keep_parity(tmp_path: Path, activation: str) -> None:
    """Every activation that is offered gives PyTorch's logits."""
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": activation}))

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5


def test_golden_rows_reach_from_one_token_to_the_longest(dense_checkpoint: Checkpoint) -> None:
    """The self-test covers the shortest and the longest text, singles and pairs, unpadded."""
    rows = golden_rows(dense_checkpoint, pad_id=1, pairs=True)

    assert {1, dense_checkpoint.max_tokens} <= {len(row) for row in rows}
    assert {max(row.types) for row in rows} == {0, 1}
    assert not any(1 in row.ids for row in rows)
    assert rows == golden_rows(dense_checkpoint, pad_id=1, pairs=True)
