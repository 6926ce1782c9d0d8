"""``spd export --format trt``, ``spd build`` and ``spd inspect`` of what they make."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from tests.cli.running import run_in
from tests.sessions.tensorrt.conftest import Machine, machine, nm_checkpoint
from tests.sessions.tensorrt.test_build import told

__all__ = ["machine", "nm_checkpoint"]  # fixtures
Made = Callable[..., Machine]


@pytest.mark.skipif(engine_fault() is None, reason="an engine can be built here")
def test_without_a_gpu_the_rest_is_said_in_a_line(
    nm_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The artefact is whole, runs on the CPU, and tells how to finish."""
    (tmp_path / "c").symlink_to(nm_checkpoint.folder)

    made = run_in(tmp_path, "export c --format trt --batch 1 --seq 16 --output a")
    shown = run_in(tmp_path, "inspect a")
    refused = run_in(tmp_path, "build a")
    unbuilt = run_in(tmp_path, "predict a good")
    answered = run_in(tmp_path, "predict a good --runtime onnxruntime")

    assert made.exit_code == 0
    assert "the engine is not built here" in made.stderr and "spd build a" in made.stderr
    assert "next      spd inspect a" in made.stdout and "spd build a" in made.stdout
    assert "planned   fp16, for 1x16, 1x32" in shown.stdout
    assert "6 of 6 matrices may run on sparse kernels" in shown.stdout
    assert "not built here yet: spd build a" in shown.stdout
    assert refused.exit_code == 1 and "NVIDIA's driver does not work here" in refused.stderr
    assert unbuilt.exit_code == 1 and "--runtime onnxruntime" in unbuilt.stderr
    assert set(json.loads(answered.stdout)["scores"]) == {"negative", "positive"}


def test_with_a_gpu_the_engine_is_built_at_once(
    nm_checkpoint: Checkpoint, tmp_path: Path, machine: Made
) -> None:
    """By the export itself, unless told not to; the verdict is then a row a matrix and bucket."""
    here = machine()
    here.log.told = told
    (tmp_path / "c").symlink_to(nm_checkpoint.folder)
    export = "export c --format trt --batch 1 --seq 32 --output"

    made = run_in(tmp_path, f"{export} a")
    shown = run_in(tmp_path, "inspect a")
    answered = run_in(tmp_path, "predict a good --runtime tensorrt")
    on_cpu = run_in(tmp_path, "predict a good --device cpu")
    left = run_in(tmp_path, f"{export} b --no-build")
    built = run_in(tmp_path, "build b --builds 1 --no-compare --json")

    assert made.exit_code == 0
    assert "runs in   tensorrt" in made.stdout
    assert "the fastest of 3 sparse and 3 dense builds" in shown.stdout
    assert "2.00x faster than the dense kernel" in shown.stdout
    assert "flagged sparse, which proves nothing" in shown.stdout
    assert answered.exit_code == 0
    assert on_cpu.exit_code == 1 and "TensorRT runs on GPUs only" in on_cpu.stderr
    assert "--no-build was given" in left.stderr
    assert [one["variant"] for one in json.loads(built.stdout)["builds"]] == ["sparse"]
    assert json.loads(run_in(tmp_path, "inspect b --json").stdout)["engine"]["chosen"] == 0
