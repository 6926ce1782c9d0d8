"""The verbs one after another, as a user types them, on a tiny model and small real files."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters import pipeline
from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark import run as benchmark
from spd_deploy.benchmark.records import BenchmarkSettings
from spd_deploy.cli import quickstart as quickstart_module
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.tasks import Task, task_named
from spd_train.config import Recipe
from spd_train.data import grammar
from tests.cli.user_folder import user_folder
from tests.tiny import tiny_checkpoint
from tests.train.runs import StopAfter


def spd(*arguments: str) -> Result:
    """Run a command in this process; a failure of the command is shown whole."""
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README has it: GLUE/MRPC, a model, and files of the user's own."""
    return user_folder(tmp_path_factory.mktemp("place"))


def test_what_was_exported_can_be_served(place: Path) -> None:
    """``spd serve`` answers over HTTP what ``spd predict`` answers, and ends well on SIGTERM."""
    artefact = place / "artefacts" / "mrpc"
    artefact_from_checkpoint(tiny_checkpoint(place / "tiny", task="mrpc"), artefact)
    said = spd("predict", str(artefact), "The film was good.", "I love it.")
    server = subprocess.Popen(
        [sys.executable, "-m", "spd_deploy", "serve", str(artefact), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        address = next(
            found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line))
        )
        body = {"inputs": [{"text": "The film was good.", "text_pair": "I love it."}]}
        request = urllib.request.Request(
            f"{address}/v1/classify",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            answer = json.loads(response.read())
    finally:
        server.terminate()
        code = server.wait(30)
        assert server.stderr is not None
        server.stderr.close()

    assert code == 0
    best = answer["results"][0]["labels"][0]
    expected = json.loads(said.stdout)
    assert best["label"] == expected["label"]
    assert best["score"] == pytest.approx(expected["score"], abs=1e-5)


recipe_for = quickstart_module.recipe_for
benchmark_settings = quickstart_module.benchmark_settings


def quick_recipe(task: Task) -> Recipe:
    """The quickstart's own recipe for few rows, with one prune of the masks on a few texts."""
    whole = recipe_for(task)
    pruning = replace(whole.student.pruning, updates=1, calibration_tokens=512)
    return replace(
        whole,
        student=replace(whole.student, finetune_epochs=0.2, pruning=pruning),
        batch_size=32,
    )


def quick_settings(threads: int | None) -> BenchmarkSettings:
    """The quickstart's own shapes, measured for a moment."""
    return replace(benchmark_settings(threads), rounds=2, seconds=0.05)


def stop(*_: object, **__: object) -> None:
    """A Ctrl-C at this place."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def stop_after_five(*_: object) -> Iterator[StopAfter]:
    """A Ctrl-C in the fifth step of a training."""
    yield StopAfter(5)


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A small quickstart that was stopped in each part and went on to its end.

    Attributes:
        place: the folder in which it ran.
        stops: what each stopped call gave.
        times: when the files of the parts were written, in ns, before the last call.
        other: what the same command with another task gave before the last call.
        last: what the last call gave.
    """

    place: Path
    stops: list[Result]
    times: dict[Path, int]
    other: Result
    last: Result


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, rendered: None, weighed: None) -> Stopped:
    """One quickstart for all tests that read what it wrote and said."""
    place = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart_module, "recipe_for", quick_recipe)
        patch.setattr(quickstart_module, "benchmark_settings", quick_settings)
        patch.setattr(grammar, "ROWS", {"train": 320, "dev": 64, "test": 64})
        patch.chdir(place)
        stops, times = [], {}
        for patched, name, fake, made in (
            (quickstart_module, "stop_on_signals", stop_after_five, "run/run.json"),
            (pipeline, "verify_parity", stop, "run/spd.json"),
            (benchmark, "run_benchmark", stop, "sparse/manifest.json"),
        ):
            with patch.context() as once:
                once.setattr(patched, name, fake)
                stops.append(spd("quickstart"))
            written = place / "quickstart" / made
            times[written] = written.stat().st_mtime_ns
        other = spd("quickstart", "--task", "agreement")
        return Stopped(place=place, stops=stops, times=times, other=other, last=spd("quickstart"))


def test_the_quickstart_goes_from_nothing_to_a_report(stopped: Stopped) -> None:
    """All stages run on built-in data and end with a table, a report and the next commands."""
    assert stopped.last.exit_code == 0, stopped.last.output
    for said in ("accuracy", "size on disk", "p50", "speed-up", "report.html", "spd serve"):
        assert said in stopped.last.output
    made = stopped.place / "quickstart"
    page = (made / "report/report.html").read_text()
    assert "Training" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert open_artefact(made / "sparse").manifest.pattern == "structured"


def test_a_stopped_quickstart_goes_on(stopped: Stopped) -> None:
    """The same command goes on after a stop in the training, in the export and in the benchmark."""
    for result in stopped.stops:
        assert result.exit_code == 130, result.output
        assert "continue with the same command" in result.stderr
    assert "continuing the quickstart in quickstart" not in stopped.stops[0].stderr
    assert stopped.last.exit_code == 0, stopped.last.output
    assert "continuing the quickstart in quickstart" in stopped.last.stderr
    for made, time_ns in stopped.times.items():  # nothing was made twice
        assert made.stat().st_mtime_ns == time_ns


def test_a_quickstart_of_another_task_stays(stopped: Stopped) -> None:
    """An unfinished quickstart does not go on with another task."""
    assert stopped.other.exit_code == 1
    assert "--task agreement, it has opinions" in stopped.other.stderr


def test_a_finished_quickstart_stays(stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, unless --overwrite is said."""
    page = stopped.place / "quickstart/report/report.html"
    before = page.stat().st_mtime_ns
    monkeypatch.chdir(stopped.place)

    assert spd("quickstart").exit_code == 1
    assert page.stat().st_mtime_ns == before


def test_the_quickstarts_defaults_are_those_of_readme() -> None:
    """README's table has the task, the pattern, the sparsity and the shapes of the defaults."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    _, found = readme.split("\nspd quickstart\n", 1)
    title, heads = found.split("```text\n", 1)[1].splitlines()[:2]
    task = next(str(p.default) for p in cli.commands["quickstart"].params if p.name == "task_name")
    pattern = recipe_for(task_named(task)).pattern
    shapes = benchmark_settings(None).shapes

    assert pattern is not None
    assert title.startswith(f"{task} (synthetic data), {pattern} at {pattern.sparsity:.0%}; ")
    assert re.findall(r"p50 (\S+)", heads) == [str(shape) for shape in shapes]


def test_a_stopped_training_goes_on(place: Path, tmp_path: Path) -> None:
    """SIGINT leaves a state, says how to go on, exits with 130, and --resume finishes the run."""
    import signal

    words = [
        *("train", "--task", "mrpc", "--data", str(place / "GLUE/MRPC")),
        *("--model", str(place / "MINILM_FOLDER"), "--pattern", "2:4", "--batch-size", "2"),
        *("--output", str(tmp_path / "run"), "--teacher-epochs", "3"),
        *("--prune-epochs", "0.1", "--graft-epochs", "0.1", "--finetune-epochs", "0.1"),
        *("--calibration-tokens", "64", "--mask-updates", "2"),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "spd_deploy", *words], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run/teacher/log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert "stops after this step" in said and "Traceback" not in said
    assert f"continue with: spd train --resume --output {tmp_path / 'run'}" in said
    result = spd(*words, "--resume")
    assert result.exit_code == 0
    assert open_checkpoint(tmp_path / "run").pattern is not None
