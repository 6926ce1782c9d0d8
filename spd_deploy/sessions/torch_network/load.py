"""Prepares a torch artefact to run: checks the GPU, loads the tensors, picks the backend."""

from pathlib import Path

from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.kernels.backends import Backend, EagerBackend, TritonBackend
from spd_deploy.kernels.launch import refuse_no_triton
from spd_deploy.kernels.two_four import TwoFourSelector
from spd_deploy.kernels.weights import dtype_of
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.sessions.protocol import Device
from spd_deploy.sessions.torch_network.network_plan import TENSORS_FILE, NetworkPlan
from spd_deploy.sessions.torch_network.tensors import Tensors, read_tensors

# The kernels need Ampere: bf16 tensor cores and asynchronous copies into shared memory.
_MIN_CAPABILITY = (8, 0)


def refuse_unsupported_gpu() -> None:
    """Refuse a machine without a GPU that the kernels support.

    Raises:
        Unavailable: PyTorch finds no CUDA device, or one before compute capability 8.0.
    """
    import torch

    refuse_without_cuda()
    capability = torch.cuda.get_device_capability()
    if capability < _MIN_CAPABILITY:
        raise Unavailable(
            "torch artefacts need a GPU of compute capability 8.0 (Ampere) or later",
            got=f"{torch.cuda.get_device_name()}, {capability[0]}.{capability[1]}",
            fix="use --device cpu, or export with --format onnx",
        )


def tensors_in(folder: Path, plan: NetworkPlan, device: Device) -> Tensors:
    """Load the tensors onto the device, and check that they have the plan's precision.

    Raises:
        BadArtefact: the file is damaged, or its matrices have another precision.
    """
    tensors, kind = read_tensors(folder / TENSORS_FILE, device), dtype_of(plan.precision)
    if any(tensors.get(f"{matrix.name}.weight").dtype != kind for matrix in plan.matrices):
        raise BadArtefact(
            f"the matrices of {folder} are not stored in {plan.precision}", fix="export it again"
        )
    return tensors


def backend_for(plan: NetworkPlan, device: Device) -> tuple[Backend, TwoFourSelector | None]:
    """The backend of block-sparse products, and the selector of 2:4 products; None on a CPU.

    Raises:
        Unavailable: block-sparse matrices run on a GPU, and Triton is missing.
    """
    if device == "cpu":
        return EagerBackend(), None
    if not plan.feature_major:
        return EagerBackend(), TwoFourSelector()
    refuse_no_triton()
    return TritonBackend(), TwoFourSelector()
