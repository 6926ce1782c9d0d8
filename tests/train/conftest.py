"""A tiny model and a run of it, made once for all tests that read them."""

from pathlib import Path

import pytest

from spd_deploy.domain.progress import Silent
from spd_train.run import run
from tests.tiny import tiny_model
from tests.train.runs import TASK, config_for


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder."""
    return tiny_model(
        tmp_path_factory.mktemp("run") / "model", task=TASK, hidden=32, intermediate=64
    )


@pytest.fixture(scope="session")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    output = tmp_path_factory.mktemp("finished") / "run"
    run(config_for(model, output), Silent())
    return output


@pytest.fixture(scope="session")
def teacher(finished: Path) -> Path:
    """A fine-tuned classifier."""
    return finished / "teacher"
