"""Every verb that takes a folder says which one was meant, or how an unfinished run goes on."""

from pathlib import Path

import pytest

from spd_deploy.domain.files import write_json
from spd_deploy.domain.folders import RUN_FILE
from tests.cli.running import run_in
from tests.tiny import tiny_checkpoint

FOLDER = [
    "export FOLDER --output out",
    "inspect FOLDER",
    "evaluate FOLDER --task mrpc --data MRPC",
    "predict FOLDER one two",
    "serve FOLDER",
    "prune FOLDER --pattern 2:4 --texts texts.csv --output out",
    "bench FOLDER --seq 8 --output out",
    "build FOLDER",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkpoint two folders down, and a run that was stopped."""
    place = tmp_path_factory.mktemp("folders")
    tiny_checkpoint(place / "runs" / "tickets", task="mrpc")
    write_json(place / "stopped" / RUN_FILE, {})
    return place


@pytest.mark.parametrize("command", FOLDER, ids=lambda command: command.split()[0])
def test_each_verb_names_the_next_thing_to_type(place: Path, command: str) -> None:
    """A folder above leads to the model in it, an unfinished run to the command that goes on."""
    above = run_in(place, command.replace("FOLDER", "runs"))
    stopped = run_in(place, command.replace("FOLDER", "stopped"))

    assert (above.exit_code, stopped.exit_code) == (1, 1)
    assert "runs/tickets" in above.stderr
    assert "continue with: spd train --resume --output stopped" in stopped.stderr
    assert not (place / "out").exists()
