"""The wheel, and a user's folder with a model in it."""

from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from tests.install.environments import built_wheel
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a checkpoint, its artefact, rows, and a ``serve.py`` of their own."""
    folder = tmp_path_factory.mktemp("place")
    made = tiny_checkpoint(folder / "checkpoint", task="sst2")
    artefact_from_checkpoint(made, folder / "artefact")
    (folder / "rows").mkdir()
    for split in ("train", "dev"):
        (folder / "rows" / f"{split}.tsv").write_text("sentence\tlabel\nnever dull\t1\nbad\t0\n")
    (folder / "rows.parquet").touch()
    (folder / "serve.py").write_text("raise SystemExit('the user\\'s serve.py ran')\n")
    return folder
