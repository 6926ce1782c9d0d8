"""A pretrained encoder that is pruned on texts alone, and what becomes of it on a task."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.errors import BadModel, Interrupted
from spd_deploy.domain.folders import DISTIL_FILE
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured, parse_pattern
from spd_deploy.domain.progress import Silent
from spd_train.config import TeacherRecipe
from spd_train.distil_encoder import distil_encoder, distil_recipe, texts_data, texts_task
from spd_train.distilled_encoder import DistilledEncoder
from spd_train.kept_zeros import zeros_of
from spd_train.model import encoder_sizes, load_classifier
from spd_train.recipes import with_fields
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.tiny import tiny_checkpoint, tiny_model
from tests.train.runs import QUICK, TASK, StopAfter, config_for, examples

PATTERNS: list[Pattern] = [
    NM(n=2, m=4),
    Block(rows=16, columns=1, sparsity=0.5),
    Unstructured(sparsity=0.7),
    Structured(sparsity=0.5),
]
# Each brings something of its own: no pooler, a table of positions, matrices stored as one.
ENCODERS = ["distilbert", "mpnet", "modernbert"]


def config(model: Path, output: Path, pattern: Pattern, **settings: object) -> TrainConfig:
    """A short run in fp32 on texts of a few words."""
    recipe = with_fields(
        distil_recipe(pattern),
        {
            "batch_size": 8,
            "max_tokens": 16,
            "precision": "fp32",
            "student.pruning.calibration_tokens": 256,
            "student.learning_rate": 1e-3,
            **settings,
        },
    )
    recipe = replace(recipe, student=recipe.student.lasting(4.0))
    return TrainConfig(
        task=texts_task(None, None),
        data=texts_data(examples(80), 0.2),
        recipe=recipe,
        model=None,
        teacher=str(model),
        output=output,
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense base model with a pooler, as encoders are published."""
    folder = tiny_model(tmp_path_factory.mktemp("dense") / "bert")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def distilled(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> DistilledEncoder:
    """The encoder of a whole run in 2:4; no test changes it."""
    output = tmp_path_factory.mktemp("distilled") / "o"
    return distil_encoder(config(dense, output, PATTERNS[0]), Silent())


def pattern_found(encoder: DistilledEncoder) -> str:
    """The pattern that the zeros of the encoder form."""
    model = load_classifier(str(encoder.folder), TASK)
    found, _ = zeros_of(model, encoder_sizes(model), "the encoder")
    return str(found.pattern).split("@")[0]


@pytest.mark.parametrize("architecture", ENCODERS)
def test_transformers_loads_the_base_model(tmp_path: Path, architecture: str) -> None:
    """AutoModel lacks only what it lacks of the original; all but the layers is the original's."""
    source = tiny_model(tmp_path / "m", architecture=architecture)
    before, lacking = AutoModel.from_pretrained(source, output_loading_info=True)

    found = distil_encoder(config(source, tmp_path / "o", PATTERNS[0]), Silent())

    after, info = AutoModel.from_pretrained(found.folder, output_loading_info=True)
    assert set(info["missing_keys"]) == set(lacking["missing_keys"])
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert pattern_found(found) == "2:4"
    ours, theirs = after.state_dict(), before.state_dict()
    layers = encoder_sizes(after).prefix.split(".", 1)[1] + "."
    rest = [n for n in theirs if not n.startswith(layers) and n not in lacking["missing_keys"]]
    assert rest and all(torch.equal(ours[name], theirs[name]) for name in rest)
    text = "the film was not bad"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (source, found.folder)]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]


def test_a_pooler_survives(dense: Path, distilled: DistilledEncoder) -> None:
    """It is in the weights, bit for bit."""
    before = load_file(dense / "model.safetensors")
    after = load_file(distilled.folder / "model.safetensors")

    assert set(before) == set(after)
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"])


def test_the_score_is_the_explained_variance_of_hidden_states(
    dense: Path, distilled: DistilledEncoder
) -> None:
    """It equals R^2 of Transformers' own hidden states, the mean over the layers."""
    tokenizer = AutoTokenizer.from_pretrained(dense)
    texts = [example.text for example in texts_data(examples(80), 0.2).holdout]
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    states = []
    for folder in (dense, distilled.folder):
        with torch.no_grad():
            model = AutoModel.from_pretrained(folder)
            states.append(model(**inputs, output_hidden_states=True).hidden_states[1:])
    shares = []
    for teacher, student in zip(*states, strict=True):
        t, s = teacher[real], student[real]
        shares.append(1 - (t - s).square().sum() / (t - t.mean(0)).square().sum())
    assert distilled.explained_variance == pytest.approx(
        float(torch.stack(shares).mean()), abs=1e-4
    )


@pytest.mark.parametrize("pattern", PATTERNS[:2], ids=str)
def test_training_is_closer_than_pruning_alone(
    dense: Path, tmp_path: Path, pattern: Pattern
) -> None:
    """The weights that were trained explain more than those that were only pruned and solved."""
    plain = {"student.dropout": False, "batch_size": 4}
    alone = config(dense, tmp_path / "a", pattern, **plain, **{"student.learning_rate": 1e-12})
    whole = config(dense, tmp_path / "o", pattern, **plain)

    pruned = distil_encoder(alone, Silent())
    trained = distil_encoder(whole, Silent())

    assert trained.explained_variance > pruned.explained_variance


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_zeros_stay_on_the_way_to_an_artefact(
    dense: Path, tmp_path: Path, pattern: Pattern
) -> None:
    """Fine-tuned with its masks kept and exported, each zero of the encoder is still there."""
    encoder = distil_encoder(config(dense, tmp_path / "e", pattern), Silent())
    assert pattern_found(encoder) == str(pattern).split("@")[0]
    assert encoder.density == pytest.approx(1 - pattern.sparsity, abs=0.05)
    assert (encoder.texts, encoder.held_out) == (64, 16)
    fine = config_for(
        encoder.folder,
        tmp_path / "o",
        replace(QUICK, pattern=None, teacher=TeacherRecipe(epochs=1, learning_rate=1e-3)),
    )

    checkpoint = run(replace(fine, keep_masks=True), Silent())

    before = load_file(encoder.folder / "model.safetensors")
    after = load_file(checkpoint.weights)
    for matrix in checkpoint.encoder.matrices():
        zero = before[matrix.weight_name.split(".", 1)[1]] == 0
        assert zero.any()
        assert not after[matrix.weight_name][zero].any()
    assert str(checkpoint.pattern).split("@")[0] == str(pattern).split("@")[0]
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")
    assert artefact.manifest.parity.max_difference < 1e-4


def test_a_stopped_run_ends_as_if_it_was_not(
    dense: Path, distilled: DistilledEncoder, tmp_path: Path
) -> None:
    """Stopped between two mask updates, it ends with the same bits and score."""
    halves = config(dense, tmp_path / "halves", PATTERNS[0])
    with pytest.raises(Interrupted, match="of encoder"):
        distil_encoder(replace(halves, should_stop=StopAfter(3)), Silent())
    assert not (halves.output / DISTIL_FILE).exists()
    with pytest.raises(Exception, match="spd distil --resume"):
        load_classifier(str(halves.output), TASK)

    resumed = distil_encoder(replace(halves, resume=True), Silent())

    weights = [load_file(one.folder / "model.safetensors") for one in (distilled, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert resumed.explained_variance == distilled.explained_variance
    assert not list(resumed.folder.glob("*state*")) and not list(resumed.folder.glob("best*"))


def test_a_classifier_of_ours_is_refused(tmp_path: Path) -> None:
    """Its head would be lost; nothing is written."""
    model = tiny_checkpoint(tmp_path / "m").folder

    with pytest.raises(BadModel, match="is a classifier"):
        distil_encoder(config(model, tmp_path / "o", PATTERNS[0]), Silent())

    assert not (tmp_path / "o").exists()


def test_a_pattern_that_does_not_fit_leaves_no_folder(dense: Path, tmp_path: Path) -> None:
    """It is refused before the folder is made, so that the next try can have it."""
    with pytest.raises(Exception, match="block"):
        distil_encoder(config(dense, tmp_path / "o", parse_pattern("block:7x1", 0.5)), Silent())

    assert not (tmp_path / "o").exists()
