"""A sparse model that is fine-tuned further: its zeros stay, and the result has its pattern."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import SPD_FILE, open_checkpoint
from spd_deploy.domain.errors import BadModel, BadSetting, Interrupted
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.tiny import tiny_checkpoint, tiny_model
from tests.train.runs import QUICK, TASK, StopAfter, config_for

PATTERNS: list[Pattern] = [
    NM(n=2, m=4),
    Block(rows=16, columns=1, sparsity=0.5),
    Unstructured(sparsity=0.7),
]
DENSE = replace(QUICK, pattern=None)


def sparse_encoder(folder: Path, pattern: Pattern) -> Path:
    """A sparse encoder of Transformers with a head of another task, without a word of ours."""
    tiny_checkpoint(folder, pattern=pattern, task="stsb")
    (folder / SPD_FILE).unlink()
    return folder


def config(model: Path, output: Path) -> TrainConfig:
    """Fine-tuning that keeps the zeros."""
    return replace(config_for(model, output, DENSE), keep_masks=True)


@pytest.mark.parametrize("pattern", [*PATTERNS, Structured(sparsity=0.5)], ids=str)
def test_zeros_stay_and_the_rest_is_trained(tmp_path: Path, pattern: Pattern) -> None:
    """Every zero of a sparse matrix is zero afterwards, other weights moved; it is exported."""
    model = sparse_encoder(tmp_path / "m", pattern)
    before = load_file(model / "model.safetensors")

    found = run(config(model, tmp_path / "o"), Silent())

    after = load_file(found.weights)
    for matrix in found.encoder.matrices():
        zero = before[matrix.weight_name] == 0
        assert zero.any()
        assert not after[matrix.weight_name][zero].any()
        moved = after[matrix.weight_name] != before[matrix.weight_name]
        assert moved[~zero].float().mean() > 0.5
    assert str(found.pattern).split("@")[0] == str(pattern).split("@")[0]
    assert found.density == pytest.approx(open_checkpoint(model).density, abs=0.01)
    assert set(found.scores) == {"sparse"}
    assert artefact_from_checkpoint(found, tmp_path / "a").manifest.parity.max_difference < 1e-4
    assert AutoModelForSequenceClassification.from_pretrained(found.folder) is not None


def test_a_stopped_run_ends_as_if_it_was_not(tmp_path: Path) -> None:
    """The masks are those of the model, so a resumed run has the same."""
    model = sparse_encoder(tmp_path / "m", PATTERNS[0])
    whole = run(config(model, tmp_path / "whole"), Silent())
    stopped = replace(config(model, tmp_path / "stopped"), should_stop=StopAfter(3))
    with pytest.raises(Interrupted):
        run(stopped, Silent())
    resumed = run(replace(config(model, tmp_path / "stopped"), resume=True), Silent())

    first, second = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_dense_model_has_no_zeros_to_keep(tmp_path: Path) -> None:
    """It is refused before anything is trained, and the folder is left free."""
    model = tiny_model(tmp_path / "m", task=TASK)
    with pytest.raises(BadModel, match="no zeros to keep"):
        run(config(model, tmp_path / "o"), Silent())
    assert not (tmp_path / "o" / "run.json").exists()


@pytest.mark.parametrize("changes", [{"recipe": QUICK}, {"teacher": "t", "model": None}])
def test_nothing_more_is_removed(tmp_path: Path, changes: dict[str, object]) -> None:
    """A pattern would prune further, and a teacher is no model to fine-tune."""
    model = tiny_model(tmp_path / "t", task=TASK)
    changes = {k: str(model) if k == "teacher" else v for k, v in changes.items()}
    with pytest.raises(BadSetting, match="--keep-masks"):
        run(replace(config(model, tmp_path / "o"), **changes), Silent())  # type: ignore[arg-type]
