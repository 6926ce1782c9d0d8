"""A model named on the hub, without a network: one line after seconds."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.user_folder import mrpc_files


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def train(place: Path, model: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """A short dense training of a model from the hub at ``endpoint``; its cache is in ``place``."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(place / "cache")}
    words = ["train", "--task", "mrpc", "--data", "MRPC", "--model", model, "--output", "out"]
    words += ["--teacher-epochs", "0.1"]
    return subprocess.run(
        [sys.executable, "-m", "spd_deploy", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_that_is_silent_is_one_line(tmp_path: Path, silent: str) -> None:
    """Nothing is tried again or printed by the hub's client, and no folder is left behind."""
    mrpc_files(tmp_path / "MRPC")

    done = train(tmp_path, "some/bert", silent)

    assert done.returncode == 1
    assert "Retry" not in done.stderr and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("spd: ")]
    assert "some/bert is not a folder here, and the Hugging Face hub does not answer; got" in line
    assert not (tmp_path / "out").exists()
