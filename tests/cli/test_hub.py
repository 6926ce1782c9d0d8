"""A model named on the hub, without a network: one line after seconds."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from spd_deploy.hub import reachable
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files

COMMAND = (
    "train --task mrpc --data MRPC --model some/bert --output out --teacher-epochs 0.1 --threads 1"
)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_hub_that_is_silent_is_one_line(
    tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is tried again or printed by the hub's client, and no folder is left behind."""
    mrpc_files(tmp_path / "MRPC")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr(reachable, "_TIMEOUT_S", 0.5)

    done = run_in(tmp_path, COMMAND)

    assert done.exit_code == 1
    told = done.stderr + "".join(capfd.readouterr())
    assert "Retry" not in told and "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("spd: ")]
    assert "some/bert is not a folder here, and the Hugging Face hub does not answer; got" in line
    assert not (tmp_path / "out").exists()
