"""A model named on the hub, without a network: one line after seconds, or the cache."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from spd_deploy.cli.inputs.latency_model import latency_weights
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.tasks import TASKS
from spd_train import hub
from spd_train.model import model_config
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_model

COMMAND = (
    "train --task mrpc --data MRPC --model {model} --output out --teacher-epochs 0.1 --threads 1"
)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def train(place: Path, model: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """A short dense training of a model from the hub at ``endpoint``; its cache is in ``place``."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(place / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "spd_deploy", *COMMAND.format(model=model).split()],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_that_is_silent_is_one_line(
    tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is tried again or printed by the hub's client, and no folder is left behind."""
    mrpc_files(tmp_path / "MRPC")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr(hub, "_PATIENCE_S", 0.5)

    done = run_in(tmp_path, COMMAND.format(model="some/bert"))

    assert done.exit_code == 1
    told = done.stderr + "".join(capfd.readouterr())
    assert "Retry" not in told and "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("spd: ")]
    assert "some/bert is not a folder here, and the Hugging Face hub does not answer; got" in line
    assert not (tmp_path / "out").exists()


def test_a_model_in_the_cache_needs_no_hub(tmp_path: Path) -> None:
    """What was fetched before is trained where nothing answers at the hub's address."""
    mrpc_files(tmp_path / "MRPC")
    repository = tmp_path / "cache/hub/models--some--bert"
    shutil.copytree(
        tiny_model(tmp_path / "model", task=TASKS["mrpc"]), repository / "snapshots" / "abc"
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")

    done = train(tmp_path, "some/bert", "http://127.0.0.1:9")

    assert done.returncode == 0, done.stderr
    assert "Retry" not in done.stderr
    assert open_checkpoint(tmp_path / "out").pattern is None


@pytest.mark.parametrize("reader", [model_config, latency_weights])
def test_every_reader_of_a_name_asks_the_hub_once(
    monkeypatch: pytest.MonkeyPatch, reader: Callable[[str], object]
) -> None:
    """A silent hub ends a latency table as it ends a training, without the client's retries."""
    monkeypatch.setattr(hub, "silence_of_hub", lambda: "no answer")

    with pytest.raises(Unavailable, match="some/bert is not a folder here, and the Hugging Face"):
        reader("some/bert")
