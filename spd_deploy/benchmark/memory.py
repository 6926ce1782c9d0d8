"""Resident memory of an arm, measured in a process of its own that does nothing else.

    echo '{"folder": "ARTEFACT", ...}' | python -m spd_deploy.benchmark.memory

The peak is the kernel's ``VmHWM`` of that process. ``ru_maxrss`` would be easier to ask for and is
wrong here: Linux lets a new program inherit the peak of the process that started it, so a parent
that once loaded PyTorch would be charged to every arm.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from spd_deploy.benchmark.arms import ArmSource
from spd_deploy.benchmark.artefact_arms import open_source
from spd_deploy.benchmark.records import BenchmarkSettings, ResidentMemory, Shape
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.child import child_environment, python_module
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES, Runtime
from spd_deploy.domain.shapes import random_batch
from spd_deploy.sessions.onnxruntime import import_onnxruntime
from spd_deploy.sessions.openvino import openvino_core
from spd_deploy.sessions.tensorrt.versions import import_tensorrt

_TIMEOUT_S = 600.0
_RUNS = 3
_STATUS = Path("/proc/self/status")


def memory_of(source: ArmSource, settings: BenchmarkSettings) -> ResidentMemory | None:
    """Measure an artefact at the largest shape; None where the system has no ``/proc``.

    Raises:
        EngineFailed: the process that ran it failed.
    """
    if not _STATUS.exists():
        return None
    shape = settings.largest
    request = {
        "folder": str(source.artefact.folder.resolve()),
        "runtime": str(source.runtime_choice),
        "device": settings.device,
        "threads": settings.threads,
        "batch": shape.batch,
        "seq": shape.seq,
    }
    command = python_module(__name__)
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise _failed(source, str(err)) from err
    if done.returncode != 0:
        raise _failed(source, (done.stderr.strip().splitlines() or ["no output"])[-1])
    return ResidentMemory(**json.loads(done.stdout.splitlines()[-1]))


def weigh(request: Mapping[str, Any]) -> ResidentMemory:
    """Measure what :func:`memory_of` asks for, in this process."""
    shape = Shape(batch=request["batch"], seq=request["seq"])
    settings = BenchmarkSettings(
        shapes=(shape,), device=request["device"], threads=request["threads"]
    )
    artefact = open_artefact(Path(request["folder"]))
    source = ArmSource(
        name="weighed", artefact=artefact, runtime_choice=RUNTIME_CHOICES[request["runtime"]]
    )
    load_library(source.runtime)
    batch = random_batch(shape, source.encoder.vocabulary, np.random.default_rng(0))
    before = bytes_in(_STATUS.read_text(), "VmRSS")
    with open_source(source, settings) as session:
        opened = bytes_in(_STATUS.read_text(), "VmRSS")
        for _ in range(_RUNS):
            session.run(batch)
        peak = bytes_in(_STATUS.read_text(), "VmHWM")
    return ResidentMemory(before_bytes=before, opened_bytes=opened, peak_bytes=peak)


def load_library(runtime: Runtime) -> None:
    """Bring the runtime's library into memory, without a model."""
    match runtime:
        case "onnxruntime":
            import_onnxruntime()
        case "openvino":
            openvino_core().get_versions("CPU")  # loads what runs on the CPU
        case "tensorrt":
            import_tensorrt()
        case "torch":
            importlib.import_module("torch")
        case never:
            assert_never(never)


def bytes_in(status: str, field: str) -> int:
    """One size from the text of ``/proc/self/status``, which counts in KiB."""
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _failed(source: ArmSource, why: str) -> EngineFailed:
    """The error for an arm whose memory could not be measured."""
    return EngineFailed(
        f"{source.name} failed in the process that measures its memory",
        got=why,
        fix="free some memory, or measure smaller shapes",
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(weigh(json.load(sys.stdin)))) + "\n")
