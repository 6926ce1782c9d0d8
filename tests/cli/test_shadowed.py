"""Files in the working folder that are named as our packages are never shadow them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.child import child_environment
from spd_deploy.domain.tasks import TASKS
from tests.cli.documents import blocks_of, pages
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_checkpoint, tiny_model

ROOT = Path(__file__).parents[2]
NAMES = ("serve", "exporters", "spd_train", "click", "torch")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder in which a file of each name raises when it is imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the user\\'s {name}.py ran')\n")
    return tmp_path


def run_there(place: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command in that folder; our packages are found through PYTHONPATH as if installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_module_runs_beside_such_files(place: Path) -> None:
    """``python -m spd_deploy`` imports its own packages, and Python's, not the folder's."""
    tiny_checkpoint(place / "model")
    for name in ("json", "logging", "numpy", "pathlib", "typing"):
        (place / f"{name}.py").write_text("raise SystemExit('not the standard library')\n")

    done = run_there(place, [sys.executable, "-m", "spd_deploy", "inspect", "model"])

    assert done.returncode == 0, done.stderr
    assert "density" in done.stdout


def test_a_sweep_of_real_trainings_runs_beside_such_files(place: Path) -> None:
    """The trainings that ``spd sweep`` starts import ours, and give checkpoints and a table."""
    mrpc_files(place / "GLUE" / "MRPC")
    tiny_model(place / "model", task=TASKS["mrpc"])
    (place / "grid.toml").write_text(
        'tasks = ["mrpc"]\nmodel = "a folder"\npatterns = ["unstructured@0.9"]\n'
        'recipes = ["prune"]\nseeds = [0]\n'
        "[train]\nepochs = 0.4\nteacher_epochs = 0.2\nbatch_size = 8\n"
    )

    done = run_in(place, "sweep grid.toml --model model --data GLUE --output out --jobs 2 --json")

    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["finished"] == 2
    assert all(run["outcome"]["gap"] is not None for run in value["runs"])
    teacher = open_checkpoint(place / "out/teachers/mrpc/seed-0")
    student = open_checkpoint(place / "out/runs/mrpc/unstructured-0.9/prune/seed-0")
    assert teacher.pattern is None and student.pattern is not None
    assert student.parents["teacher"] == teacher.weights_sha256


def test_the_documented_launcher_line_runs_beside_such_files(place: Path) -> None:
    """Every process that the documentation's ``torchrun`` starts on one machine imports ours."""
    commands = [line for page in pages() for b in blocks_of(page) for line in b.commands]
    lines = {re.split(" train ", line)[0] for line in commands if line.startswith("torchrun ")}
    here = [line for line in lines if "--nnodes" not in line]
    assert here
    for line in here:
        _, *options, program = line.split()
        assert program == "spd"
        launcher = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", *options]

        done = run_there(place, [*launcher, str(Path(sys.executable).parent / "spd"), "--version"])

        assert done.returncode == 0, done.stderr
        assert done.stdout.count("spd, version") == 2


def test_a_checkout_that_is_not_installed_finds_itself(tmp_path: Path) -> None:
    """A child without site-packages imports our packages from the checkout it was started from."""
    subprocess.run(
        [sys.executable, "-S", "-P", "-c", "import spd_deploy.domain.errors"],
        cwd=tmp_path,
        env=child_environment(),
        check=True,
    )
