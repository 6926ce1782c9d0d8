"""ModernBERT's artefacts: Transformers' logits on awkward and long texts, in every form."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from exporters.classifier_weights import read_weights
from exporters.export import artefact_from_checkpoint
from exporters.parity import golden_rows
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.awkward_texts import awkward_inputs
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE, PORTABLE_FILE, OnnxSession
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.openvino import OpenVinoSession, openvino_core, precisions_of
from tests.tiny import tiny_checkpoint, tiny_model

POSITIONS = 300  # more than twice the window of real models, which these have: 64 to each side
SIZES: dict[str, Any] = {"layers": 3, "positions": POSITIONS}


def made(folder: Path, spelled: str | None, **sizes: Any) -> Checkpoint:
    pattern = None if spelled is None else parse_pattern(spelled)
    return tiny_checkpoint(
        folder,
        architecture="modernbert",
        pattern=pattern,
        max_tokens=POSITIONS,
        **{**SIZES, "local_attention": 128, **sizes},
    )


def transformers_logits(checkpoint: Checkpoint) -> list[NDArray[np.float32]]:
    """Of each awkward input, tokenised and cut by Transformers."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
    logits = []
    for text, pair in awkward_inputs(POSITIONS):
        texts = ([text],) if pair is None else ([text], [pair])
        given = tokenizer(*texts, truncation=True, max_length=POSITIONS, return_tensors="pt")
        given.pop("token_type_ids", None)
        with torch.no_grad():
            logits.append(model(**given).logits.numpy())
    return logits


def sessions(checkpoint: Checkpoint, folder: Path) -> Iterator[Any]:
    """Of every file in fp32: ONNX Runtime's graph, the portable one, and the torch artefact."""
    artefact = artefact_from_checkpoint(checkpoint, folder / "onnx")
    for file in (MODEL_FILE, PORTABLE_FILE):
        yield OnnxSession(artefact.folder / file, precision="fp32")
    yield session_from_artefact(
        torch_artefact_from_checkpoint(checkpoint, folder / "torch", precision="fp32")
    )


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("spelled", [None, "block:16x1", "structured"])
def test_awkward_texts_get_transformers_logits(
    tmp_path: Path, spelled: str | None, pooling: str
) -> None:
    """Empty, in any script, as pairs, cut at the limit, and longer than the window."""
    checkpoint = made(tmp_path / "c", spelled, classifier_pooling=pooling)
    expected = transformers_logits(checkpoint)
    tokenizer = tokenizer_of(checkpoint)
    rows = [tokenizer.encode(text, pair) for text, pair in awkward_inputs(POSITIONS)]
    assert max(len(row.ids) for row in rows) == POSITIONS

    for session in sessions(checkpoint, tmp_path):
        with session:
            for row, logits_BC in zip(rows, expected, strict=True):
                found = session.run(tokenizer.pad([row]))
                np.testing.assert_allclose(found, logits_BC, rtol=1e-4, atol=1e-4)
            padded = session.run(tokenizer.pad(rows))
        np.testing.assert_allclose(padded, np.concatenate(expected), rtol=1e-4, atol=1e-4)


LOCAL = 8  # tokens see 4 to each side, so that rows of more than 32 are split into chunks


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Transformers' models with a small window, and their graphs, by pattern."""
    folder = tmp_path_factory.mktemp("chunked")
    made_of: dict[str, Any] = {}
    for spelled in (None, "block:16x1"):
        checkpoint = made(
            folder / str(spelled).replace(":", "-"),
            spelled,
            local_attention=LOCAL,
            classifier_pooling="mean",
        )
        artefact = artefact_from_checkpoint(checkpoint, folder / f"{len(made_of)}-onnx")
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
        open_in = {
            "onnxruntime": OnnxSession(artefact.folder / MODEL_FILE, precision="fp32"),
            "portable": OnnxSession(artefact.folder / PORTABLE_FILE, precision="fp32"),
            "openvino": OpenVinoSession(
                artefact.folder / PORTABLE_FILE, precision="fp32", positions=POSITIONS
            ),
        }
        made_of[str(spelled)] = (model.eval(), open_in, artefact.folder / PORTABLE_FILE)
    return made_of


@given(
    spelled=st.sampled_from(["None", "block:16x1"]),
    lengths=st.lists(st.integers(1, POSITIONS), min_size=1, max_size=3),
    border=st.sampled_from([None, 31, 32, 33, 36, 37, 40]),
)
@settings(max_examples=30)
def test_rows_in_chunks_get_transformers_logits(
    chunked: dict[str, Any], spelled: str, lengths: list[int], border: int | None
) -> None:
    """Whatever the lengths of the rows are, and that of the batch, in every runtime."""
    model, open_in, _ = chunked[spelled]
    lengths = lengths if border is None else [border, *(min(one, border) for one in lengths)]
    mask_BS = np.array([[int(i < n) for i in range(max(lengths))] for n in lengths], np.int64)
    ids_BS = np.random.default_rng(len(lengths)).integers(5, 40, mask_BS.shape)
    with torch.no_grad():
        expected = model(torch.tensor(ids_BS), attention_mask=torch.tensor(mask_BS)).logits.numpy()

    for session in open_in.values():
        found = session.run(Batch(ids_BS=ids_BS, mask_BS=mask_BS, types_BS=0 * ids_BS))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_positions_survive_a_runtime_that_rounds_to_bf16(chunked: dict[str, Any]) -> None:
    """In bf16 neighbours far from the beginning are one number, and an angle may be off by one."""
    if "bf16" not in precisions_of(openvino_core()):
        pytest.skip("OpenVINO offers no bf16 on this CPU")
    model, _, portable = chunked["None"]
    ids_BS = np.random.default_rng(0).integers(5, 40, (4, POSITIONS))
    with torch.no_grad():
        expected = model(torch.tensor(ids_BS)).logits.numpy()
    batch = Batch(ids_BS=ids_BS, mask_BS=np.ones_like(ids_BS), types_BS=0 * ids_BS)

    with OpenVinoSession(portable, precision="bf16", positions=POSITIONS) as session:
        np.testing.assert_allclose(session.run(batch), expected, atol=0.3)


@pytest.mark.parametrize(("max_tokens", "splits"), [(32, False), (33, True)])
def test_a_graph_splits_rows_where_some_are_long_enough(
    tmp_path: Path, max_tokens: int, splits: bool
) -> None:
    """A model that reads short rows alone does not pay for the choice."""
    checkpoint = tiny_checkpoint(
        tmp_path / "c", architecture="modernbert", local_attention=LOCAL, max_tokens=max_tokens
    )
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")
    graph = onnx.load(artefact.folder / MODEL_FILE, load_external_data=False).graph
    assert any(node.op_type == "Mod" for node in graph.node) == splits


def test_a_window_is_seen_in_the_logits(tmp_path: Path) -> None:
    """A layer whose tokens see all of a long text answers otherwise than one with a window."""
    near, far = (
        tiny_model(
            tmp_path / name,
            architecture="modernbert",
            layers=2,
            positions=POSITIONS,
            local_attention=window,
        )
        for name, window in (("near", 8), ("far", 600))
    )
    row = golden_rows(open_checkpoint(near), pad_id=0, pairs=False)[-1]

    logits = []
    for name, folder in (("near", near), ("far", far)):
        artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / f"{name}-a")
        with session_from_artefact(artefact) as session:
            logits.append(session.run(artefact.tokenizer().pad([row])))

    assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize(
    "biases",
    [
        {"attention_bias": True},
        {"mlp_bias": True, "norm_bias": True},
        {"classifier_bias": True, "hidden_activation": "silu"},
    ],
    ids=str,
)
def test_biases_are_read_where_there_are_any(tmp_path: Path, biases: dict[str, Any]) -> None:
    """Of stacked matrices too; drawn ones change the logits, and the artefact has them."""
    folder = tiny_model(tmp_path / "m", architecture="modernbert", **biases)
    state = load_file(folder / WEIGHTS_FILE)
    draw = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(value.shape, generator=draw)
        for name, value in state.items()
        if name.endswith(".bias")
    }
    save_file({**state, **drawn}, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-4
    tensors = read_weights(open_checkpoint(folder)).tensors
    assert sum(name.endswith(".bias") for name in tensors) > 1


def test_a_stacked_matrix_of_another_height_is_refused(tmp_path: Path) -> None:
    """Rows that cannot be shared out evenly are those of another model."""
    folder = tiny_model(tmp_path / "m", architecture="modernbert")
    state = load_file(folder / WEIGHTS_FILE)
    name = "model.layers.0.attn.Wqkv.weight"
    save_file({**state, name: state[name][:-1].clone()}, folder / WEIGHTS_FILE)

    with pytest.raises(BadModel, match=f"{name} .* does not hold 3 matrices of a size"):
        open_checkpoint(folder)


def test_long_rows_of_the_self_test_are_bounded(tmp_path: Path) -> None:
    """A model of 8192 positions is not run at that length whenever it is opened."""
    checkpoint = open_checkpoint(
        tiny_model(tmp_path / "m", architecture="modernbert", positions=8192)
    )

    rows = golden_rows(checkpoint, pad_id=0, pairs=False)

    assert checkpoint.encoder.positions == 8192
    assert max(len(row.ids) for row in rows) == 1024
