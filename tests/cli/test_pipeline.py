"""The verbs one after another, as a user types them, on a tiny model and small real files."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.report import SCHEMA
from spd_deploy.cli import quickstart as quickstart_module
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, open_checkpoint
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.tasks import TASKS, Task
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from spd_train.config import Recipe
from spd_train.data.grammar import generate
from tests.tiny import tiny_checkpoint, tiny_model
from tests.train.runs import StopAfter

README = Path(__file__).parents[2] / "README.md"


def spd(*arguments: str) -> Result:
    """Run a command in this process; a failure of the command is shown whole."""
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def mrpc_files(folder: Path) -> Path:
    """Files in MRPC's layout, with its byte-order mark and quotes, of sentences of our own."""
    folder.mkdir(parents=True)
    rows = generate("agreement", "dev")
    for name, part in (("train.tsv", rows[:96]), ("dev.tsv", rows[96:128])):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for i, row in enumerate(part):
            lines.append(f'{int(row.label or 0)}\t{i}\t{i}\t"{row.text}\t{row.pair}')
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README has it: GLUE/MRPC, a model, and files of the user's own."""
    place = tmp_path_factory.mktemp("place")
    mrpc_files(place / "GLUE" / "MRPC")
    tiny_model(place / "MINILM_FOLDER", task=TASKS["mrpc"], intermediate=256)
    tiny_checkpoint(place / "SPARSE_FOLDER", pattern=parse_pattern("block:32x1"))
    (place / "SPARSE_FOLDER" / SPD_FILE).unlink()
    pair = {"text": "The film was good.", "text_pair": "I love it."}
    (place / "pairs.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(pair) + "\n")
    reviews = "".join(
        f'"{row.text}",{1 + 4 * int(row.label or 0)}\n' for row in generate("opinions", "dev")[:100]
    )
    (place / "reviews.csv").write_text("review,stars\n" + reviews)
    return place


def commands_of_readme() -> Iterator[str]:
    """Every ``spd`` command that README's shell blocks show, continuation lines joined."""
    text = README.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("spd "):
                yield line.split(" #")[0].strip()


def test_the_commands_of_readme_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in order in one folder, every command of README does what it should."""
    monkeypatch.chdir(place)
    commands = list(commands_of_readme())
    assert len(commands) >= 9
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] in ("quickstart", "serve", "sweep"):
            continue  # they have tests of their own, below and in test_sweep.py
        if words[0] == "bench":
            words += ["--rounds", "2", "--seconds", "0.01"]
        if "--seq" in words:  # the tiny model has 64 positions
            words[words.index("--seq") + 1] = "16,32"
        result = spd(*words)
        if words[0] == "build" and (fault := engine_fault()) is not None:
            assert result.exit_code == 1  # it needs a GPU, and says so
            assert fault.split(" (")[0] in result.stderr
            continue
        if "cuda" in words and not torch.cuda.is_available():
            assert "PyTorch finds no CUDA device" in result.output, command
            continue
        assert result.exit_code == 0, f"{command}\n{result.output}"

    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 and answers[0] == answers[1]
    assert set(answers[0]["scores"]) == {"not_equivalent", "equivalent"}
    assert open_artefact(Path("artefacts/mrpc")).manifest.pattern == "block:64x1"
    assert open_artefact(Path("artefacts/theirs")).manifest.pattern == "block:32x1"
    assert open_checkpoint(Path("runs/reviews")).task.labels == ("1", "5")
    report = json.loads(Path("report/report.json").read_text())
    assert report["schema"] == SCHEMA


def test_what_was_exported_can_be_served(place: Path) -> None:
    """``spd serve`` answers over HTTP what ``spd predict`` answers, and ends well on SIGTERM."""
    artefact = place / "artefacts" / "mrpc"
    if not artefact.exists():  # another worker runs README's commands
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
    assert open_artefact(tmp_path / "quickstart/sparse").manifest.pattern == "block:64x1"
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
