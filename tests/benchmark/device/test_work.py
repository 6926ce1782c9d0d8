"""The least work of an artefact, by what ran it."""

from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.artefact_arms import arms_of
from spd_deploy.benchmark.device.device_records import KernelTrace
from spd_deploy.benchmark.records import Shape
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import NM
from spd_deploy.domain.roofline import encoder_work
from tests.benchmark.made_device import GEMM, SPARSE
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint

SHAPE = Shape(batch=2, seq=16)
DENSE, ON_SPARSE = (
    KernelTrace(shape=SHAPE, kernels=(GEMM,)),
    KernelTrace(shape=SHAPE, kernels=(GEMM, SPARSE)),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """2:4 in all its matrices."""
    return tiny_checkpoint(tmp_path_factory.mktemp("nm") / "c", pattern=NM(n=2, m=4))


def arm_for(artefact: Artefact) -> Arm:
    (arm,) = arms_of([artefact])
    return arm


@pytest.mark.parametrize("form", ["torch", "trt"])
def test_what_2_4_kernels_ran_counts_half(
    form: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Operations and bytes of weights, as of a model of half the density; dense kernels all."""
    made = torch_artefact_from_checkpoint if form == "torch" else exported
    artefact = made(checkpoint, tmp_path / "a")
    encoder = checkpoint.encoder
    halves = {matrix.name: 0.5 for matrix in encoder.matrices()}

    found = arm_for(artefact)

    assert found.work(DENSE, 2) == encoder_work(encoder, SHAPE, first_only=True)
    assert found.work(ON_SPARSE, 2) == encoder_work(encoder, SHAPE, shares=halves, first_only=True)
    known = KernelTrace(shape=SHAPE, kernels=None, sparse_kernels=("spgemm",))
    assert found.work(known, 2) == found.work(ON_SPARSE, 2)


def test_what_has_no_2_4_kernel_counts_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """ONNX Runtime multiplies the zeros, whatever a kernel of its is called."""
    found = arm_for(artefact_from_checkpoint(checkpoint, tmp_path / "a"))

    assert found.work(ON_SPARSE, 2) == found.work(DENSE, 2)
