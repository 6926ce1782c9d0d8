"""A tiny training, and its artefact, made through the Python API alone."""

from pathlib import Path

import pytest

import spd_deploy as spd
from spd_train.data.grammar import generate
from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's file of reviews and a small pretrained model."""
    place = tmp_path_factory.mktemp("api")
    rows = generate("opinions", "dev")[:120]
    lines = [f'"{row.text}",{1 + 4 * int(row.label == 1)}' for row in rows]
    (place / "reviews.csv").write_text("\n".join(["review,stars", *lines, ""]))
    tiny_model(place / "MINILM_FOLDER", hidden=32, intermediate=64)
    return place


@pytest.fixture(scope="session")
def trained(place: Path) -> spd.TrainResult:
    """A block-sparse student and its teacher, trained for an epoch."""
    return spd.train(
        data=place / "reviews.csv",
        text_column="review",
        label_column="stars",
        model=place / "MINILM_FOLDER",
        pattern="block:16x1",
        sparsity=0.5,
        epochs=1,
        teacher_epochs=1,
        mask_updates=2,
        calibration_tokens=256,
        max_tokens=16,
        batch_size=16,
        precision="fp32",
        threads=1,
        output=place / "runs" / "reviews",
    )


@pytest.fixture(scope="session")
def exported(place: Path, trained: spd.TrainResult) -> spd.ExportResult:
    """The student's artefact."""
    return spd.export(trained, output=place / "artefacts" / "reviews")
