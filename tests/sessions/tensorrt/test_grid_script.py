"""The GPU grid's engines: built for a shape where TensorRT works, else missing with its reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu_models as script
from benchmarks.gpu_models import engines_for
from spd_deploy.benchmark.artefact_arms import sources_of
from spd_deploy.benchmark.compare import engines_of
from spd_deploy.benchmark.dense.dense_arms import ENGINES
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.open import prove, session_from_artefact
from spd_deploy.sessions.tensorrt.engine_record import read_record
from tests.sessions.tensorrt.conftest import Machine

SHAPE = Shape(batch=4, seq=8)


@pytest.fixture
def checkpoints(dense_checkpoint: Checkpoint, nm_checkpoint: Checkpoint) -> dict[str, Checkpoint]:
    return {"dense": dense_checkpoint, "2-4": nm_checkpoint}


def test_engines_are_built_for_the_shape(
    machine: Callable[..., Machine], checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """Dense and sparse, with a bucket of the shape; each proves itself; the dense one is found."""
    machine()

    built, absent = engines_for(checkpoints, tmp_path, SHAPE, dense=ENGINES)

    arms = sources_of(built)
    assert [arm.name for arm in arms] == ["dense-trt", "2-4-trt"]
    assert [one.name for one in absent] == ["dense tensorrt-int8"]
    assert engines_of(arms) == {"fp16"}
    listed = {one.name.removeprefix("dense ") for one in absent}
    assert {f"tensorrt-{one}" for one in engines_of(arms)} | listed == set(ENGINES)
    assert [read_record(one.folder).variant for one in built] == ["dense", "sparse"]
    for artefact in built:
        assert SHAPE in read_record(artefact.folder).buckets
        with session_from_artefact(artefact) as session:
            assert prove(session, artefact) <= artefact.manifest.parity.tolerance


def test_what_cannot_be_built_has_its_reason(
    machine: Callable[..., Machine], checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """One that TensorRT does not take is a line, and the row goes on."""
    here = machine()
    here.log.refuse = "[E] no Erf"

    built, absent = engines_for(checkpoints, tmp_path, SHAPE, dense=())

    assert built == ()
    assert [one.name for one in absent] == ["2-4-trt"]
    assert "no Erf" in absent[0].reason


def test_without_tensorrt_every_engine_has_the_reason(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine lacks is told of each row that it would have had."""
    monkeypatch.setattr(script, "engine_fault", lambda: "no NVIDIA driver works here")

    built, absent = engines_for(checkpoints, tmp_path, SHAPE, dense=("tensorrt-fp16",))

    assert built == ()
    assert {one.name: one.reason for one in absent} == {
        "dense-trt": "no NVIDIA driver works here",
        "2-4-trt": "no NVIDIA driver works here",
    }
