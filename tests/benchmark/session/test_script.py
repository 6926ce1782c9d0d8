"""The script of a GPU session: killed and resumed, cut off, refused; and its arms and report."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from time import monotonic

import pytest
import torch

from benchmarks.gpu import TAR_FILE, main, refuse_missing
from benchmarks.gpu_arms import GpuArm, Timing, arms_of_session, measured_shape
from benchmarks.gpu_report import (
    REPORT_FILE,
    RESULTS_FILE,
    Line,
    read_lines,
    report_of,
    with_gains,
)
from benchmarks.gpu_session import read_progress
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.cuda_clock import CudaClock
from tests.timing.simulated_gpu import SimulatedGpu, SimulatedRun, SimulatedRuns, Times

# A session whose second phase does not end, at first.
SESSION = """
import sys, time
from pathlib import Path
from benchmarks.gpu import keep_deadline, run_session
from benchmarks.gpu_session import Phase

folder, until_s = Path(sys.argv[1]), float(sys.argv[2])

def quick():
    yield {"arm": "x", "dense": True, "graph_s": 2e-3, "cold_s": 3e-3, "spread_s": [1e-3, 3e-3]}

def slow():
    yield {"arm": "y", "not_run": "half way"}
    while not (folder / "go").exists():
        time.sleep(0.02)
    yield {"arm": "z", "dense": True, "graph_s": 1e-3, "cold_s": 2e-3, "spread_s": [1e-3, 1e-3]}

keep_deadline(until_s)
first = Phase(name="first", expected_s=0, work=quick)
second = Phase(name="second", expected_s=0, work=slow)
run_session((first, second), folder, until_s=until_s, title="Simulated")
"""


def session(folder: Path, until_s: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SESSION, str(folder), str(until_s)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_session_goes_on(tmp_path: Path) -> None:
    """What was measured before SIGKILL stays, half a line does not, and the rest is measured."""
    with session(tmp_path, 300) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if "half way" in line:
                break
        os.kill(killed.pid, signal.SIGKILL)
    with (tmp_path / RESULTS_FILE).open("a") as results:
        results.write('{"phase": "sec')
    (tmp_path / "go").touch()

    resumed = session(tmp_path, 300)
    told, _ = resumed.communicate(timeout=300)

    assert resumed.returncode == 0
    assert "first" not in told  # it was done before
    lines = read_lines(tmp_path)
    assert [line["arm"] for line in lines] == ["x", "y", "y", "z"]
    assert set(read_progress(tmp_path).done) == {"first", "second"}
    assert "| z | 1.000 |" in (tmp_path / REPORT_FILE).read_text()
    with tarfile.open(tmp_path / TAR_FILE) as tar:
        assert set(tar.getnames()) == {"results.jsonl", "report.md", "manifest.json"}


def test_a_session_ends_at_its_deadline(tmp_path: Path) -> None:
    """A phase that does not end is cut off, and the report of the others is written."""
    begun = monotonic()
    cut = session(tmp_path, 3)
    cut.communicate(timeout=300)

    assert cut.returncode == 0
    assert monotonic() - begun < 120
    progress = read_progress(tmp_path)
    assert set(progress.done) == {"first"}
    assert progress.cut_s["second"] > 0
    assert progress.attempts["second"] == 0
    assert "| x | 2.000 |" in (tmp_path / REPORT_FILE).read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits with the line, and nothing is made."""
    monkeypatch.setattr(sys, "argv", ["gpu", "--output", str(tmp_path / "o")])

    with pytest.raises(SystemExit) as ended:
        main()

    assert str(ended.value).startswith("benchmarks.gpu: PyTorch finds no CUDA device")
    assert "\n" not in str(ended.value)
    assert not (tmp_path / "o").exists()


def test_missing_packages_are_named_together() -> None:
    """One refusal names all, with the command that installs them."""
    with pytest.raises(Unavailable, match="got none1, none2; pip install none1 none2"):
        refuse_missing(["json", "none1", "none2"])


# What the server, the command line and reading of documents need, and a GPU's session does not.
UNNEEDED = (
    "pydantic", "fastapi", "starlette", "uvicorn", "httptools", "prometheus_client", "click",
    "rich", "jinja2", "matplotlib", "pyarrow", "onnx", "onnxruntime", "openvino",
)  # fmt: skip
IMPORTS = """
from importlib.machinery import PathFinder
plain = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: (
    None if name.split(".")[0] in {absent} else plain(name, *rest)
)
try:
    import pydantic
    raise SystemExit("pydantic is there")
except ModuleNotFoundError:
    pass
import torch
from dataclasses import replace
import benchmarks.gpu, benchmarks.kernel
from benchmarks.gpu import phases_of
from benchmarks.gpu_arms import Timing
from benchmarks.gpu_networks import SparseNetwork, drawn_model, encoder_of, spd_network
from spd_deploy.benchmark.dense.torch_dense import DenseTorchSession, forward_of
from spd_deploy.domain.patterns import Block
from spd_deploy.kernels.backends import EagerBackend, TritonBackend
from spd_deploy.kernels.sources import tuned
from spd_deploy.sessions.torch_network.graphs import CudaGraphs
phases_of(Timing())
small = replace(encoder_of("base"), layers=1, hidden=64, heads=1, intermediate=64, positions=16)
network = SparseNetwork(name="b", pattern=Block(rows=32, columns=1, sparsity=0.5))
model = drawn_model(small, network, "cpu", torch.float32)
ids = torch.ones(1, 4, dtype=torch.long)
own = spd_network(model, small, network, backend=EagerBackend(), selector=None)
with torch.inference_mode():
    off = own.logits(ids, ids, ids * 0) - forward_of(model, "eager")(ids, None, ids * 0)
print(float(off.abs().max()) < 1e-5)
"""


def test_a_session_needs_nothing_of_the_server() -> None:
    """Its modules import, and its networks run, where pydantic and the server are not installed."""
    command = [sys.executable, "-c", IMPORTS.format(absent=set(UNNEEDED))]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr


def test_arms_are_timed_and_compared_with_the_fastest_dense_one() -> None:
    """By a simulated GPU: gains, cold times, and a reason for the arm that does not run."""
    gpu = SimulatedGpu()
    takes_ns = {"torch-eager": 400_000, "torch-compile": 200_000, "torch-spd": 100_000}

    def prepare(arm: GpuArm) -> tuple[SimulatedRun, float]:
        if arm.form == "torch-eager" and not arm.dense:
            raise RuntimeError("an illegal memory access")
        half = takes_ns[arm.form] // (1 if arm.dense else 2)
        runs = SimulatedRuns(gpu, Times(device_ns=half))
        return SimulatedRun(gpu, runs.times, None, graph=True), 1e-3  # type: ignore[arg-type]

    lines = list(
        measured_shape(
            "base",
            Shape(batch=1, seq=8),
            clock=lambda: gpu,
            timing=Timing(rounds=2, runs=4),
            arms=arms_of_session()[:6],
            prepare=prepare,
        )
    )

    by_arm = {line["arm"]: line for line in lines}
    assert (
        by_arm["structured 75%, torch-eager"]["not_run"] == "RuntimeError: an illegal memory access"
    )
    best = by_arm["structured 75%, torch-spd"]
    assert best["graph_s"] == pytest.approx(50e-6)
    assert best["cold_s"] == pytest.approx(80e-6)
    assert (best["against"], best["gain"]) == ("dense, torch-spd", pytest.approx(2.0))
    assert "gain" not in by_arm["dense, torch-eager"]
    assert json.loads(json.dumps(lines)) == lines


def test_the_report_has_a_table_a_phase_and_what_was_not_run() -> None:
    """Of a phase that ran twice the last figures count, and one reached later is not absent."""
    times: Line = {"dense": True, "cold_s": 2e-3, "spread_s": [1e-3, 2e-3]}
    lines: list[Line] = [
        {"phase": "a", "not_run": "no time"},
        {"phase": "b", "not_run": "no time"},
        *with_gains([{"phase": "a", "arm": "x", **times, "graph_s": 4e-3}]),
        *with_gains(
            [
                {"phase": "a", "arm": "x", **times, "graph_s": 2e-3},
                {"phase": "a", "arm": "y", **times, "dense": False, "graph_s": 1e-3},
            ]
        ),
    ]

    text = report_of(lines, "Title")

    assert text.count("no time") == 1
    assert "4.000" not in text
    assert "| y | 1.000 | [1.000, 2.000] | 2.000 | 2.00x | x |" in text
    assert text.index("| y |") < text.index("| x |")


@pytest.mark.gpu
def test_every_arm_runs_on_a_gpu() -> None:
    """BERT-base in every network, each by graph and near to eager PyTorch's logits."""
    arms = tuple(arm for arm in arms_of_session() if arm.form != "torch-compile")

    lines = list(
        measured_shape(
            "base",
            Shape(batch=2, seq=32),
            clock=CudaClock,
            timing=Timing(rounds=2, runs=4),
            arms=arms,
        )
    )

    assert [line["arm"] for line in lines] == [str(arm) for arm in arms]
    assert all(line["graph_s"] > 0 and line["difference"] < 2e-2 for line in lines), lines
