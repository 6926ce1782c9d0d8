"""The verbs one after another, as a user types them, on a tiny model and small real files."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli import quickstart as quickstart_module
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.tasks import Task
from spd_train.config import Recipe
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


def quick(task: Task) -> Recipe:
    """The quickstart's own recipe, cut to a few steps."""
    whole = recipe_for(task)
    return replace(
        whole,
        teacher=replace(whole.teacher, epochs=0.02),
        student=replace(whole.student, prune_epochs=0.02, graft_epochs=0.01, finetune_epochs=0.01),
    )


recipe_for = quickstart_module.recipe_for


def test_the_quickstart_goes_from_nothing_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stages run on built-in data and end with a table, a report and the next commands."""
    monkeypatch.setattr(quickstart_module, "recipe_for", quick)
    monkeypatch.chdir(tmp_path)

    result = spd("quickstart")

    assert result.exit_code == 0
    for said in ("accuracy", "size on disk", "p50", "speed-up", "report.html", "spd serve"):
        assert said in result.output
    page = (tmp_path / "quickstart/report/report.html").read_text()
    assert "Training" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert open_artefact(tmp_path / "quickstart/sparse").manifest.pattern == "structured"
    assert spd("quickstart").exit_code == 1  # what is there stays, unless --overwrite is said


def test_a_stopped_quickstart_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on after a stop in the training, in the export and in the benchmark."""
    from exporters import pipeline
    from spd_deploy.benchmark import run as benchmark

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def stop_after_five(*_: object) -> Iterator[StopAfter]:
        yield StopAfter(5)

    monkeypatch.setattr(quickstart_module, "recipe_for", quick)
    monkeypatch.chdir(tmp_path)
    written = {}
    for patched, name, fake, made in (
        (quickstart_module, "stop_on_signals", stop_after_five, "run/run.json"),
        (pipeline, "verify_parity", stop, "run/spd.json"),
        (benchmark, "run_benchmark", stop, "sparse/manifest.json"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(patched, name, fake)
            result = spd("quickstart")
        assert result.exit_code == 130, result.output
        assert "continue with the same command" in result.stderr
        written[made] = (tmp_path / "quickstart" / made).stat().st_mtime_ns
    other = spd("quickstart", "--task", "agreement")
    assert other.exit_code == 1 and "--task agreement, it has opinions" in other.stderr

    result = spd("quickstart")

    assert result.exit_code == 0, result.output
    assert "continuing the quickstart in quickstart" in result.stderr
    for made, time_ns in written.items():  # nothing was made twice
        assert (tmp_path / "quickstart" / made).stat().st_mtime_ns == time_ns


def test_a_stopped_training_goes_on(place: Path, tmp_path: Path) -> None:
    """SIGINT leaves a state, says how to go on, exits with 130, and --resume finishes the run."""
    import signal

    words = [
        *("train", "--task", "mrpc", "--data", str(place / "GLUE/MRPC")),
        *("--model", str(place / "MINILM_FOLDER"), "--pattern", "2:4", "--batch-size", "2"),
        *("--output", str(tmp_path / "run"), "--teacher-epochs", "12"),
        *("--prune-epochs", "0.1", "--graft-epochs", "0.1", "--finetune-epochs", "0.1"),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "spd_deploy", *words], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run/teacher/log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert "stops after this step" in said and "Traceback" not in said
    assert f"continue with: spd train --resume --output {tmp_path / 'run'}" in said
    result = spd(*words, "--resume")
    assert result.exit_code == 0
    assert open_checkpoint(tmp_path / "run").pattern is not None
