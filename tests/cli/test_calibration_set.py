"""What an export is judged on: never on what it was calibrated or trained on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import Precision
from spd_deploy.cli.inputs.calibration_set import calibration_set_for
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import own_task
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Closing, Description
from spd_train.data.splits import read_data

OWN = own_task(text_column="text", pair_column=None, label_column="stars", labels=("1", "5"))
Row = tuple[int, ...]


class Watching(Closing):
    """A session that remembers what it was given, and answers by the sum of a row's ids."""

    description = Description(
        runtime="watching", version="0", device="cpu", precision="fp32", threads=None
    )

    def __init__(self) -> None:
        self.seen: list[Row] = []

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Two logits for each row."""
        self.seen += rows_of(batch)
        return np.stack([[ids.sum() % 2, 0.5] for ids in batch.ids_BS]).astype(np.float32)


def rows_of(batch: Batch) -> list[Row]:
    """The rows without their padding."""
    pairs = zip(batch.ids_BS, batch.mask_BS, strict=True)
    return [tuple(ids[mask > 0].tolist()) for ids, mask in pairs]


def written(file: Path) -> Path:
    """Forty texts, each with letters of its own."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"a good film {letters[i // 26]} {letters[i % 26]}" for i in range(40)]
    lines = [json.dumps({"text": text, "stars": "15"[i % 2]}) for i, text in enumerate(texts)]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("name", ["reviews.jsonl", "own/train.jsonl"])
def test_one_file_judges_by_the_rows_that_training_held_out(
    tmp_path: Path, dense_checkpoint: Checkpoint, name: str
) -> None:
    """A lone file, or a folder with train alone: what is scored is what ``spd train`` left out."""
    file = written(tmp_path / name)
    place = file if name == "reviews.jsonl" else file.parent
    folder = shutil.copytree(dense_checkpoint.folder, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": dict(enumerate(OWN.labels))}
    (folder / "config.json").write_text(json.dumps({**config, **labels}))
    own = replace(dense_checkpoint, folder=folder, task=OWN)

    calibration_set = calibration_set_for(own, None, place, 1.0, Silent())
    calibration_set.score(session := Watching())

    calibrated = {row for batch in calibration_set.batches for row in rows_of(batch)}
    trained = read_data(OWN, place)
    assert calibration_set.split == trained.dev_name == "dev, a tenth of the file"
    assert (len(session.seen), len(calibrated)) == (4, 36)
    assert calibrated.isdisjoint(session.seen)


def test_the_record_says_what_was_scored_on(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """Beside scores that a checkpoint brings from another split, both splits are named."""
    file = written(tmp_path / "reviews.jsonl")
    folder = shutil.copytree(dense_checkpoint.folder, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": dict(enumerate(OWN.labels))}
    (folder / "config.json").write_text(json.dumps({**config, **labels}))
    own = replace(dense_checkpoint, folder=folder, task=OWN)
    calibration_set = calibration_set_for(own, None, file, 100.0, Silent())

    for known, said in (
        (None, "dev, a tenth of the file"),
        ("dev, a tenth of the file", "dev, a tenth of the file"),
        ("dev", "dev; when exported dev, a tenth of the file"),
    ):
        artefact = artefact_from_checkpoint(
            replace(own, split=known),
            tmp_path / "a",
            ExportRequest(precision=Precision.INT8, calibration_set=calibration_set),
            overwrite=True,
        )
        assert artefact.manifest.split == said
