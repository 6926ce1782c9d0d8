"""``spd bench --http`` and ``spd bench --compare`` as they are typed, and what they refuse."""

import json
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.http import visit
from spd_deploy.benchmark.report import text_from_report
from spd_deploy.cli.main import cli
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.child import child_environment, python_module
from tests.benchmark.made import ARM, drawn, gathered, made_report

QUICK = ("--batch", "1", "--seq", "8", "--threads", "1", "--rounds", "2", "--seconds", "0.02")


@pytest.fixture(scope="module")
def artefact(block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block-sparse artefact."""
    folder = tmp_path_factory.mktemp("http") / "block"
    artefact_from_checkpoint(block_checkpoint, folder)
    return folder


def spd_bench(*words: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["bench", *map(str, words)])


def report_in(folder: Path, block_s: float) -> Path:
    """A report's folder, in which block takes so long and dense ten milliseconds."""
    samples = {"dense": drawn(0.010), "block": drawn(block_s, seed=1)}
    folder.mkdir()
    text = text_from_report(made_report(samples, arms=(ARM, gathered())), {})
    (folder / "report.json").write_text(text, encoding="utf-8")
    return folder


def test_a_run_over_http_starts_servers_and_compares_them(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the artefact is started, and the tables and the JSON tell what it does."""
    monkeypatch.setattr(visit, "_LEAST_ARRIVALS", 20)
    monkeypatch.setattr(visit, "_BOUNDS_LONG", 0.1)
    monkeypatch.setattr(visit, "_STEPS", 2)
    result = spd_bench(
        artefact, "--http", "--latency-bound", "100", "--price-per-hour", "2", "--json",
        "--output", tmp_path / "r", *QUICK,
    )  # fmt: skip
    told = json.loads(result.stdout)["http"]

    assert result.exit_code == 0, result.output
    assert [row["shape"] for row in told["single"]] == ["1x8"]
    assert told["wrong"] == 0 < told["checked"]
    assert told["headlines"][0].startswith("block over HTTP: ")
    assert "Over HTTP" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def is_server(process: psutil.Process) -> bool:
    """Whether a process is ``spd serve``; one that has ended meanwhile is none."""
    try:
        return "serve" in process.cmdline()
    except psutil.Error:
        return False


def test_a_run_that_is_stopped_leaves_no_server(artefact: Path, tmp_path: Path) -> None:
    """SIGTERM ends the run with status 130, and its server and load generator with it."""
    words = ["bench", artefact, "--http", "--output", tmp_path / "r", *QUICK]
    command = [*python_module("spd_deploy"), *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=child_environment()) as process:
        started: list[psutil.Process] = []
        give_up_at = time.perf_counter() + 300
        while time.perf_counter() < give_up_at and not any(map(is_server, started)):
            time.sleep(0.05)
            started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, told = process.communicate(timeout=300)
    _, alive = psutil.wait_procs(started, timeout=60)

    assert started and not alive
    assert process.returncode == 130
    assert told.decode().splitlines()[-1].startswith("spd: stopped")
    assert not (tmp_path / "r").exists()


def test_equal_reports_pass_the_gate(tmp_path: Path) -> None:
    """Two reports are compared without measuring, and the status is 0."""
    old, new = report_in(tmp_path / "old", 0.005), report_in(tmp_path / "new", 0.005)

    result = spd_bench(new, "--compare", old / "report.json")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "0 of 1 rows failed"


def test_a_lost_speed_up_fails_the_gate(tmp_path: Path) -> None:
    """The status is 1 and the row is named, but for a limit that is lower."""
    old, new = report_in(tmp_path / "old", 0.005), report_in(tmp_path / "new", 0.006)

    result = spd_bench(new, "--compare", old)
    told = json.loads(spd_bench(new, "--compare", old, "--json").stdout)["comparison"]

    assert result.exit_code == 1
    assert "block at 8x32: times dense" in result.stdout
    assert "1 of 1 rows failed" in result.stdout
    assert told["failed"] == ["block at 8x32: times dense"]
    assert spd_bench(new, "--compare", old, "--fail-below", "0.5").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rates", "10"), "--rates goes with --http"),
        (("--url", "http://a"), "--url goes with --http"),
        (("--api-key-file", "key"), "--api-key-file goes with --url"),
        (
            ("--http", "--url", "http://a", "--api-key-file", "gone"),
            "--api-key-file cannot be read",
        ),
        (("--latency-bound", "50"), "--latency-bound goes with --http"),
        (("--price-per-hour", "1"), "--price-per-hour goes with --http"),
        (("--fail-below", "0.9"), "--fail-below goes with --compare"),
        (("--compare-times",), "--compare-times goes with --compare"),
        (("--http", "--rates", "0"), "holds 0; a rate is from"),
        (("--http", "--rates", "10,-5"), "holds -5; a rate is from"),
        (("--http", "--rates", "nan"), "holds nan; a rate is from"),
        (("--http", "--rates", "fast"), "is not a list of numbers such as 50,100"),
        (("--http", "--latency-bound", "0"), "is not in the range"),
        (("--http", "--latency-bound", "nan"), "nan is not a length of time"),
        (("--http", "--price-per-hour", "0"), "is not in the range"),
        (("--http", "--url", "localhost"), "this is no URL of a server; got localhost"),
        (("--http", "--url", "http://127.0.0.1:9"), "nobody answers at http://127.0.0.1:9"),
        (("--compare", "gone.json"), "gone.json"),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_bad_words_are_refused(
    words: tuple[str, ...], said: str, artefact: Path, tmp_path: Path
) -> None:
    """One line names the option and what is wrong, and nothing is written."""
    result = spd_bench(artefact, *words, "--output", tmp_path / "r", *QUICK)

    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert said in result.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("text", ["", "two words", "one\ntwo"])
def test_what_is_no_key_is_refused(
    text: str, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file and in the variable alike, and the message does not show it."""
    (tmp_path / "key").write_text(text, encoding="utf-8")
    words = (artefact, "--http", "--url", "http://127.0.0.1:9", "--output", tmp_path / "r")

    by_file = spd_bench(*words, "--api-key-file", tmp_path / "key")
    monkeypatch.setenv("SPD_API_KEY", text)
    by_variable = spd_bench(*words)

    assert by_file.exit_code == by_variable.exit_code == 1
    assert "key does not hold an API key" in by_file.stderr
    assert "SPD_API_KEY does not hold an API key" in by_variable.stderr
    assert not text or text not in by_file.stderr + by_variable.stderr


def test_what_is_no_report_of_ours_is_refused(artefact: Path, tmp_path: Path) -> None:
    """A document of another kind, of another schema, and one that is no JSON."""
    new = report_in(tmp_path / "new", 0.005)
    old = tmp_path / "old.json"
    for text, said in (
        ("{}", "schema"),
        ('{"schema": 1}', "schema this version does not read; got 1"),
        ('{"schema": 2, "latency": []}', "unknown field"),
        ("nothing", "old.json"),
    ):
        old.write_text(text)
        result = spd_bench(new, "--compare", old)
        assert result.exit_code == 1
        assert said in result.stderr


def test_a_second_report_goes_alone(artefact: Path, tmp_path: Path) -> None:
    """Beside an artefact, without --compare, or with --output it is refused."""
    old, new = report_in(tmp_path / "old", 0.005), report_in(tmp_path / "new", 0.005)
    out = ("--output", tmp_path / "r")

    assert "goes alone, with --compare" in spd_bench(new, artefact, "--compare", old).stderr
    assert "goes alone, with --compare" in spd_bench(new, *out).stderr
    assert "no report is written" in spd_bench(new, "--compare", old, *out).stderr


# ONNX Runtime's own warning, which comes before our refusal.
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDA")
def test_http_on_a_gpu_that_is_not_there_is_refused(artefact: Path, tmp_path: Path) -> None:
    """No server is started on the CPU instead."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = spd_bench(
        artefact, "--http", "--device", "cuda", "--seq", "8", "--output", tmp_path / "r"
    )

    assert result.exit_code == 1
    assert "cuda" in result.stderr.lower()
