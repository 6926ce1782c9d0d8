"""How many threads a session takes where none are named, and on which CPUs they run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.cores import allowed_cpus, default_threads
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.open import open_path

_ALONE = """
import json, os, sys
from pathlib import Path
os.sched_setaffinity(0, {int(sys.argv[2])})
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.sessions.open import open_path
with open_path(Path(sys.argv[1]), runtime_choice=RUNTIME_CHOICES[sys.argv[3]]).session as session:
    tasks = [str(task) for task in Path("/proc/self/task").iterdir()]
    found = {cpu for task in tasks for cpu in os.sched_getaffinity(int(Path(task).name))}
    print(json.dumps({"threads": session.description.threads, "cpus": sorted(found)}))
"""


@pytest.fixture(scope="module")
def models(
    dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each runtime on the CPU."""
    folder = tmp_path_factory.mktemp("threads")
    onnx = artefact_from_checkpoint(dense_checkpoint, folder / "onnx").folder
    torch = torch_artefact_from_checkpoint(
        dense_checkpoint, folder / "torch", precision="fp32"
    ).folder
    return {
        "onnxruntime": onnx,
        "openvino": onnx,
        "torch": torch,
        "auto": dense_checkpoint.folder,  # as it is, in PyTorch
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch", "auto"])
def test_threads_are_as_many_as_the_cores(models: dict[str, Path], runtime: str) -> None:
    """Every runtime takes as many threads as the process may use cores, and says so."""
    with open_path(models[runtime], runtime_choice=RUNTIME_CHOICES[runtime]).session as session:
        assert session.description.threads == default_threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_threads_stay_on_the_allowed_cpus(models: dict[str, Path], runtime: str) -> None:
    """A process that may run on one CPU runs one thread, and none on another CPU."""
    cpu = max(allowed_cpus())
    command = [sys.executable, "-c", _ALONE, str(models[runtime]), str(cpu), runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout.splitlines()[-1]) == {"threads": 1, "cpus": [cpu]}
