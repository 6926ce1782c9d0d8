"""``spd sweep`` as it is typed: plan, run, table, stop, and refusals in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spd_deploy.cli.main import cli
from spd_train.sweep import command
from spd_train.sweep import run_sweep as run_sweep_module
from tests.train import fake_train

GRID = """
model = "MODEL"
tasks = ["mrpc"]
patterns = ["2:4", "unstructured@0.9"]
recipes = ["spd", "prune"]
seeds = [0]
"""
AS_A_PROCESS = """
from spd_train.sweep import command
from tests.train import fake_train
command.PROGRAM = fake_train.PROGRAM
from spd_deploy.cli.main import main
main()
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A grid's file."""
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    return file


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep sees at once what has become of its children."""
    monkeypatch.setattr(run_sweep_module, "_POLL_S", 0.01)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children are fakes."""
    monkeypatch.setattr(command, "PROGRAM", fake_train.PROGRAM)


def spd_sweep(*words: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["sweep", *map(str, words)])


def test_a_plan_is_shown_and_nothing_run(grid: Path, tmp_path: Path) -> None:
    """Every run stands there with its state, and the first command whole."""
    result = spd_sweep(grid, "--output", tmp_path / "out", "--jobs", "3", "--dry-run")

    assert result.exit_code == 0
    for said in ("mrpc dense seed 0", "mrpc unstructured@0.9 prune seed 0", "5 of 5 runs to do"):
        assert said in result.stdout
    assert "3 at once" in result.stdout
    first = result.stdout.splitlines()[-1]
    assert f"train --task mrpc --model MODEL --seed 0 --device cpu --output {tmp_path}" in first
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fakes")
def test_a_sweep_ends_with_a_table_and_two_figures(grid: Path, tmp_path: Path) -> None:
    """Table and figures are written and named, and a second time nothing is left to do."""
    output = tmp_path / "out"

    result = spd_sweep(grid, "--output", output)

    assert result.exit_code == 0, result.output
    for said in ("mrpc, f1 on dev", "unstructured@0.9", "5 of 5 runs are finished"):
        assert said in result.stdout
    for name in ("table.md", "table.json", "overfitting.png", "gaps.png"):
        assert (output / name).stat().st_size > 100
        assert f"saved   {output / name}" in result.stdout
    again = spd_sweep(grid, "--output", output, "--dry-run", "--json")
    assert {run["state"] for run in json.loads(again.stdout)["runs"]} == {"finished"}


@pytest.mark.usefixtures("fakes")
def test_a_failure_is_told_after_the_table(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, the last line of the run's log, and the table of the others."""
    monkeypatch.setenv("SPD_FAKE_FAIL", "2-4/prune")

    result = spd_sweep(grid, "--output", tmp_path / "out", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["finished"] == 4
    lines = [line for line in result.stderr.splitlines() if line.startswith("spd: ")]
    assert len(lines) == 1
    assert lines[0].startswith("spd: 1 runs failed, 0 wait for them; got mrpc 2:4 prune seed 0: ")
    assert "the loss is not a number" in lines[0] and "Traceback" not in result.output


@pytest.mark.usefixtures("fakes")
def test_the_table_is_made_of_what_is_finished(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --table-only no run is started, and a grid that has grown shows dashes."""
    monkeypatch.setenv("SPD_FAKE_FAIL", "unstructured")
    assert spd_sweep(grid, "--output", tmp_path / "out").exit_code == 1
    (tmp_path / "out/table.md").unlink()

    result = spd_sweep(grid, "--output", tmp_path / "out", "--table-only")

    assert result.exit_code == 0
    assert "3 of 5 runs are finished" in result.stdout
    assert "| - | - |" in (tmp_path / "out/table.md").read_text()
    nowhere = spd_sweep(grid, "--output", tmp_path / "none", "--table-only")
    assert nowhere.exit_code == 1 and "there is no sweep" in nowhere.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("fakes")
def test_a_table_does_not_mix_settings(grid: Path, tmp_path: Path) -> None:
    """The table of a grid whose settings were changed is refused too."""
    spd_sweep(grid, "--output", tmp_path / "out")
    grid.write_text(GRID + "[train]\nepochs = 3\n")

    result = spd_sweep(grid, "--output", tmp_path / "out", "--table-only")

    assert result.exit_code == 1
    assert "was started with another epochs; got 3, it had none" in result.stderr


def has_file(folder: Path, name: str) -> bool:
    """Whether a file of that name is somewhere in a folder, whose parts may move meanwhile."""
    return any(name in files for _, _, files in os.walk(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_says_how_to_go_on(number: int, grid: Path, tmp_path: Path) -> None:
    """The runs save their state, the table is written, the exit code is 130."""
    output = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-c", AS_A_PROCESS, "sweep", str(grid), "--output", str(output)],
        env={**os.environ, "SPD_FAKE_WAIT": "runs/"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    with running:
        while not has_file(output, "run.json") and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(number)
        said, told = running.communicate(timeout=60)

    assert running.returncode == 130, told
    assert "stopped; 1 of 5 runs are finished; continue with the same command" in told
    assert "Traceback" not in told
    assert "1 of 5 runs are finished" in said
    assert (output / "table.md").exists()
    saved = {file.read_text() for file in output.rglob("signals")}
    assert saved == {f"{signal.SIGTERM.value}\n"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("prune", "pruen"), "grid.toml: recipes[1]: unknown recipe; got 'pruen'; use one of spd,"),
        (("2:4", "4:2"), "grid.toml: patterns[0]: an N:M pattern"),
        (("mrpc", "mrcp"), "grid.toml: tasks[0]: unknown task; got 'mrcp'"),
        (("[0]", "[]"), "grid.toml: seeds is empty"),
        (("seeds", "sedes"), "unknown field; got sedes"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[1],
)
def test_a_bad_grid_is_one_clear_line(
    change: tuple[str, str], said: str, grid: Path, tmp_path: Path
) -> None:
    """File, field, what stands there and what to do, and nothing is written."""
    grid.write_text(GRID.replace(*change))

    result = spd_sweep(grid, "--output", tmp_path / "out")

    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()
