"""Checkpoints compared as they are exported: their scores, and times of one interleaved run."""

from pathlib import Path

import numpy as np
import pytest

from exporters.compare_models import ModelForm, compare_models
from exporters.precision import CalibrationSet
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Structured
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.sessions.openvino import openvino_core, precisions_of
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession
from spd_deploy.timing.host_clock import TimingSettings
from tests.tiny import tiny_checkpoint

SHAPES = (Shape(batch=1, seq=8), Shape(batch=4, seq=16))
QUICK = TimingSettings(seconds=0.002, rounds=2)
# Differences of logits from the checkpoint's that a precision explains.
NEAR = {"fp32": 1e-4, "int8": 0.3, "bf16": 0.3}


def texts(checkpoint: Checkpoint) -> CalibrationSet:
    """Scored by the largest difference of the logits from the checkpoint's in PyTorch."""
    vocabulary = checkpoint.encoder.vocabulary
    batch = random_batch(SHAPES[1], vocabulary, np.random.default_rng(7))
    with TorchSession(checkpoint.folder) as session:
        expected_BC = session.run(batch)

    def score(session: Session) -> dict[str, float | None]:
        return {"difference": float(np.abs(session.run(batch) - expected_BC).max())}

    return CalibrationSet(batches=[batch], score=score, metric="difference", max_drop=100.0)


def test_each_model_is_scored_and_timed_in_its_form(tmp_path: Path) -> None:
    """The scores are those of the checkpoint in that precision; forms keep their order."""
    dense = tiny_checkpoint(tmp_path / "dense", seed=1).folder
    sparse = tiny_checkpoint(tmp_path / "2x", pattern=Structured(sparsity=0.5), seed=2).folder
    rounded = ModelForm(name="dense", checkpoint=dense, runtime="openvino", precision="bf16")
    forms = [
        ModelForm(name="dense", checkpoint=dense, runtime="onnxruntime", precision="fp32"),
        ModelForm(name="dense", checkpoint=dense, runtime="openvino", precision="int8"),
        *([rounded] if "bf16" in precisions_of(openvino_core()) else []),
        ModelForm(name="2x", checkpoint=sparse, runtime="onnxruntime", precision="fp32"),
    ]

    found = compare_models(forms, SHAPES, threads=1, texts=texts, timing=QUICK)

    for model, form in zip(found, forms, strict=True):
        assert (model.name, model.runtime, model.precision) == (
            form.name,
            form.runtime,
            form.precision,
        )
        assert model.seconds > 0
        assert model.scores["difference"] == pytest.approx(0, abs=NEAR[model.precision])
