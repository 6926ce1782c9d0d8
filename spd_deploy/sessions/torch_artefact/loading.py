"""What a torch artefact needs before it runs: a GPU that will do, tensors, and who runs them."""

from pathlib import Path

from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.kernels.backends import Backend, Plain, Triton
from spd_deploy.kernels.launch import refuse_no_triton
from spd_deploy.kernels.two_four import Chooser
from spd_deploy.kernels.weights import dtype_of
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.sessions.protocol import Device
from spd_deploy.sessions.torch_artefact.plan import TENSORS_FILE, NetworkPlan
from spd_deploy.sessions.torch_artefact.tensors import Tensors, read_tensors

# The kernels want Ampere's tensor cores, for bf16 and for copies into shared memory.
_LEAST_CAPABILITY = (8, 0)


def refuse_no_cuda() -> None:
    """CUDA must be there, with a GPU that the kernels are made for.

    Raises:
        Unavailable: PyTorch finds no device, or one that is too old; or its driver is.
    """
    import torch

    refuse_without_cuda()
    capability = torch.cuda.get_device_capability()
    if capability < _LEAST_CAPABILITY:
        raise Unavailable(
            "torch artefacts need a GPU of compute capability 8.0 (Ampere) or later",
            got=f"{torch.cuda.get_device_name()}, {capability[0]}.{capability[1]}",
            fix="use --device cpu, or export with --format onnx",
        )


def tensors_in(folder: Path, plan: NetworkPlan, device: Device) -> Tensors:
    """The tensors on the device, in the precision of the plan.

    Raises:
        BadArtefact: the file is damaged, or holds other numbers.
    """
    tensors, kind = read_tensors(folder / TENSORS_FILE, device), dtype_of(plan.number)
    if any(tensors.get(f"{matrix.name}.weight").dtype != kind for matrix in plan.matrices):
        raise BadArtefact(
            f"the matrices of {folder} are not stored in {plan.number}", fix="export it again"
        )
    return tensors


def runners_for(plan: NetworkPlan, device: Device) -> tuple[Backend, Chooser | None]:
    """Who runs blocks, and who chooses 2:4 tensor cores, which a CPU does not have.

    Raises:
        Unavailable: blocks are to run on a GPU, and Triton is missing.
    """
    if device == "cpu":
        return Plain(), None
    if not plan.feature_major:
        return Plain(), Chooser()
    refuse_no_triton()
    return Triton(), Chooser()
