"""Each architecture as an artefact: transformers' logits, whatever surrounds the encoder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import transformers
from safetensors.torch import load_file, save_file

from exporters.autotune.select import NOT_PRUNED, choose_lowerings
from exporters.classifier_weights import read_weights
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from spd_deploy.sessions.open import open_path
from spd_deploy.sessions.torch import TorchSession
from tests.tiny import CONFIGS, OF_ROBERTA, classifier_of, tiny_checkpoint, tiny_config, tiny_model

LOWERED = [(None, "dense"), ("block:32x1", "gathered"), ("structured", "compact")]


def random_batches(checkpoint: Checkpoint) -> list[Batch]:
    """Rows of all lengths, alone and padded, with any id among the tokens, also padding's."""
    tokenizer = Tokenizer(checkpoint.folder / "tokenizer.json", max_tokens=64)
    draw = np.random.default_rng(1)
    lengths = [(1,), (2, 1), (checkpoint.encoder.positions,), (5, 64, 17), (9,) * 8]
    return [
        tokenizer.pad(
            [
                Tokens(
                    ids=tuple(draw.integers(0, checkpoint.encoder.vocabulary, n).tolist()),
                    types=(0,) * (n // 2) + (1,) * (n - n // 2),
                )
                for n in row
            ]
        )
        for row in lengths
    ]


@pytest.fixture(scope="module", params=CONFIGS)
def of_pairs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Checkpoint, Artefact]:
    """An architecture with a dense classifier of pairs, and its artefact."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = tiny_checkpoint(folder / "c", architecture=request.param, task="mrpc")
    return request.param, checkpoint, artefact_from_checkpoint(checkpoint, folder / "a")


@pytest.mark.parametrize(("pattern", "lowering"), LOWERED)
@pytest.mark.parametrize("architecture", CONFIGS)
def test_an_artefact_gives_transformers_logits(
    tmp_path: Path, architecture: str, pattern: str | None, lowering: str
) -> None:
    """At any batch and length, pairs and padding included, dense and sparse."""
    checkpoint = tiny_checkpoint(
        tmp_path / "c",
        architecture=architecture,
        pattern=None if pattern is None else parse_pattern(pattern, 0.75),
    )

    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    assert {row.lowering for row in artefact.manifest.matrices} == {lowering}
    with (
        TorchSession(checkpoint.folder) as reference,
        OnnxSession(artefact.folder / MODEL_FILE, precision="fp32") as session,
    ):
        for batch in random_batches(checkpoint):
            expected = reference.run(batch)
            assert np.ptp(expected) > 0.01
            np.testing.assert_allclose(session.run(batch), expected, rtol=1e-4, atol=1e-5)


def test_the_graph_has_the_same_three_inputs(of_pairs: tuple[str, Checkpoint, Artefact]) -> None:
    """Also where a model reads no token types, so that sessions need not know the architecture."""
    architecture, _, artefact = of_pairs

    session = onnxruntime.InferenceSession(artefact.folder / MODEL_FILE)
    assert [i.name for i in session.get_inputs()] == [
        "input_ids", "attention_mask", "token_type_ids",
    ]  # fmt: skip
    assert artefact.golden().batch.types_BS.any() == (architecture in ("bert", "electra", "ernie"))


def test_texts_are_answered_alike_from_both_folders(
    of_pairs: tuple[str, Checkpoint, Artefact],
) -> None:
    """Checkpoint and artefact, opened as they are served, agree about a padded batch of pairs."""
    architecture, checkpoint, artefact = of_pairs
    logits = []
    for folder in (checkpoint.folder, artefact.folder):
        opened = open_path(folder)
        rows = [
            opened.tokenizer.encode("the film was not good", "i love it"),
            opened.tokenizer.encode("bad", "great"),
        ]
        with opened.session as session:
            logits.append(session.run(opened.tokenizer.pad(rows)))

    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)
    assert opened.tokenizer.pad_id == (1 if architecture in OF_ROBERTA else 0)


def test_electra_may_be_as_wide_as_its_embeddings(tmp_path: Path) -> None:
    """Without a projection there is none in the graph."""
    config = transformers.ElectraConfig(
        vocab_size=100, num_hidden_layers=1, hidden_size=64, num_attention_heads=4,
        intermediate_size=128, embedding_size=64,
    )  # fmt: skip
    folder = tiny_model(tmp_path / "m", architecture="electra")
    transformers.ElectraForSequenceClassification(config).save_pretrained(folder)

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5


def test_an_architecture_without_export_is_refused(tmp_path: Path) -> None:
    """A model whose layers can be pruned but whose embeddings are not known is named."""
    config = transformers.LayoutLMConfig(
        vocab_size=100, num_hidden_layers=1, hidden_size=64, num_attention_heads=4,
        intermediate_size=128,
    )  # fmt: skip
    folder = tiny_model(tmp_path / "m")
    transformers.LayoutLMForSequenceClassification(config).save_pretrained(folder)

    with pytest.raises(BadModel, match="cannot be exported; got a base model named 'layoutlm'"):
        artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert not (tmp_path / "a").exists()


def test_ernies_task_types_are_exported(tmp_path: Path) -> None:
    """With use_task_id every token has the vector of task 0, as in transformers."""
    config = tiny_config("ernie")
    config.use_task_id, config.task_type_vocab_size = True, 3
    folder = tiny_model(tmp_path / "m", architecture="ernie")
    classifier_of(config).save_pretrained(folder)

    artefact = artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")

    assert artefact.manifest.parity.max_difference < 1e-5


def test_an_encoder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    """What was pretrained but not fine-tuned gives no logits."""
    folder = tiny_model(tmp_path / "m")
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)

    with pytest.raises(BadModel, match="an encoder alone"):
        artefact_from_checkpoint(open_checkpoint(folder), tmp_path / "a")


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_tensor_of_a_head_is_needed(tmp_path: Path, architecture: str) -> None:
    """A missing tensor outside the layers is named before anything is lowered."""
    folder = tiny_model(tmp_path / "m", architecture=architecture)
    whole = load_file(folder / WEIGHTS_FILE)
    outside = [name for name in whole if ".layer" not in name and "position" not in name]
    for name in outside:
        rest = {k: v for k, v in whole.items() if k != name}
        save_file(rest, folder / WEIGHTS_FILE, metadata={"format": "pt"})

        with pytest.raises(BadModel, match=f"no tensor {name}"):
            read_weights(open_checkpoint(folder))


def goals_of(checkpoint: Checkpoint, *roles: str, layer: int, sparsity: float) -> dict[str, float]:
    return {
        m.name: sparsity
        for m in checkpoint.encoder.matrices()
        if m.layer == layer and m.role in roles
    }


ATTENTION = ("query", "key", "value", "attention_output")


@pytest.mark.parametrize("pattern", ["block:32x1", "structured", "unstructured"])
def test_each_matrix_is_lowered_at_its_own_goal(tmp_path: Path, pattern: str) -> None:
    """Goals that differ by group are verified one by one, and what was excluded stays dense."""
    plain = tiny_checkpoint(tmp_path / "p")
    goals = {
        **goals_of(plain, *ATTENTION, layer=0, sparsity=0.0),
        **goals_of(plain, *ATTENTION, layer=1, sparsity=0.5),
        **goals_of(plain, "intermediate", "output", layer=1, sparsity=0.9),
    }
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern(pattern, 0.75), goals=goals)

    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    rows = {row.name: row for row in artefact.manifest.matrices}
    for matrix in checkpoint.encoder.matrices():
        row, goal = rows[matrix.name], goals.get(matrix.name, 0.75)
        assert row.density == pytest.approx(1 - goal, abs=0.02)
        assert row.pattern == (pattern if goal else "dense")
        if goal == 0:
            assert (row.lowering, row.flops_share) == ("dense", 1.0)
            assert row.reason == NOT_PRUNED
        elif row.lowering != "dense":
            assert row.flops_share == pytest.approx(row.density, abs=0.05)


def test_a_group_with_an_excluded_matrix_keeps_its_heads(tmp_path: Path) -> None:
    """Where one matrix of a layer's attention is left dense, no head can go from the others."""
    plain = tiny_checkpoint(tmp_path / "p")
    checkpoint = tiny_checkpoint(
        tmp_path / "c",
        pattern=parse_pattern("structured", 0.5),
        goals=goals_of(plain, "value", layer=0, sparsity=0.0),
    )

    found = choose_lowerings(checkpoint, read_weights(checkpoint))

    layer = {m.role: found[m.name] for m in checkpoint.encoder.matrices() if m.layer == 0}
    assert layer["value"].lowering.name == "dense"
    assert layer["query"].reason == "4 of 4 heads are left"
    assert layer["output"].reason == "64 of 128 neurons are left"
    artefact_from_checkpoint(checkpoint, tmp_path / "a")


def test_a_goal_that_is_not_met_is_not_written(tmp_path: Path) -> None:
    """Verification asks each matrix for its own sparsity, not for the pattern's."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("block:32x1", 0.5))
    name = next(checkpoint.encoder.matrices()).name

    with pytest.raises(VerificationFailed, match=f"{name} does not satisfy block:32x1 at 90%"):
        artefact_from_checkpoint(replace(checkpoint, sparsities={name: 0.9}), tmp_path / "a")


def test_distilberts_activation_is_read(tmp_path: Path) -> None:
    """It stands under another name in config.json than BERT's, and an unknown one is refused."""
    folder = tiny_model(tmp_path / "m", architecture="distilbert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"activation": "mish"}))

    with pytest.raises(
        BadModel, match=r"activation in config.json, cannot be exported; got 'mish'"
    ):
        read_weights(open_checkpoint(folder))
