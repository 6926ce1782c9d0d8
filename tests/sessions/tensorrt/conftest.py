"""trt artefacts, and a machine that is made up: a GPU, and a TensorRT that builds and runs."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import CalibrationSet, Precision
from exporters.tensorrt import build
from exporters.tensorrt.engine_format import engine_format
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import NM
from spd_deploy.sessions.tensorrt import compatibility, session
from spd_deploy.sessions.tensorrt.shape_buckets import buckets_for
from tests.sessions.tensorrt.fake_gpu import FakeGpu
from tests.sessions.tensorrt.fake_tensorrt import Log, fake_compile, fake_tensorrt
from tests.tiny import tiny_checkpoint


@dataclass
class Machine:
    """What a test may look into and change."""

    gpu: FakeGpu
    log: Log


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Machine]:
    """Puts a GPU and a TensorRT of some version in place, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(version: str = "10.13.3.9", gpu: FakeGpu | None = None) -> Machine:
        found = Machine(gpu=gpu or FakeGpu(), log=Log())
        for module in (build, compatibility, session):
            monkeypatch.setattr(module, "CudaDevice", found.gpu.open)
        monkeypatch.setattr(build, "compile_engine", fake_compile(found.log))
        monkeypatch.setattr(compatibility, "load_driver", lambda: None)
        monkeypatch.setattr(compatibility, "driver_version", lambda: "580.95.05")
        module = fake_tensorrt(version, found.gpu, found.log)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        return found

    return made


@pytest.fixture(scope="session")
def nm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A 2:4 checkpoint for SST-2 that reads 32 tokens."""
    return tiny_checkpoint(tmp_path_factory.mktemp("nm") / "model", pattern=NM(n=2, m=4), layers=1)


def exported(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    seqs: tuple[int, ...] = (8,),
    precision: Precision = Precision.FP16,
    calibration_set: CalibrationSet | None = None,
) -> Artefact:
    """Its trt artefact for 1 and 4 rows of 8 tokens, and of as many as it reads."""
    buckets = buckets_for((1, 4), seqs, longest=checkpoint.max_tokens)
    return artefact_from_checkpoint(
        checkpoint,
        folder,
        ExportRequest(
            precision=precision,
            calibration_set=calibration_set,
            export_format=engine_format(buckets),
        ),
    )


@pytest.fixture(scope="session")
def nm_artefact(nm_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A trt artefact of the 2:4 checkpoint that no test writes to."""
    return exported(nm_checkpoint, tmp_path_factory.mktemp("nm-artefact") / "a")


@pytest.fixture
def artefact(nm_artefact: Artefact, tmp_path: Path) -> Artefact:
    """A trt artefact of the 2:4 checkpoint, without an engine, of the test's own."""
    shutil.copytree(nm_artefact.folder, tmp_path / "artefact")
    return replace(nm_artefact, folder=tmp_path / "artefact")
