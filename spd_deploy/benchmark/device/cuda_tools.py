"""Everything that a run needs of a GPU, in one value, so that tests can simulate it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from spd_deploy.benchmark.device.device_records import MemoryCopy, Peak, TracedKernel
from spd_deploy.benchmark.device.limits import measure_copy, measure_peaks
from spd_deploy.benchmark.device.trace_kernels import kernels_of
from spd_deploy.benchmark.device.watch_gpu import StateReader, state_reader
from spd_deploy.benchmark.records import Skipped
from spd_deploy.domain.nvidia import processes
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.timing.cuda_clock import CudaClock, DeviceClock


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTools:
    """A GPU with its clock, its limits and its tracer.

    Attributes:
        gpu: its clock.
        read_state: its state; takes the seconds since the first reading.
        trace: the kernels that a run launches; None where nothing can be traced.
        used_bytes: how much of its memory is in use.
        peaks: measures its rate of products in each precision, and names those it does not have.
        memory_copy: measures its rate of copies.
        processes_before: other processes that computed on the machine's GPUs before this one.
    """

    gpu: DeviceClock
    read_state: StateReader
    trace: Callable[[Callable[[], object]], tuple[TracedKernel, ...] | None]
    used_bytes: Callable[[], int]
    peaks: Callable[[], tuple[tuple[Peak, ...], tuple[Skipped, ...]]]
    memory_copy: Callable[[], MemoryCopy]
    l2_bytes: int
    versions: Mapping[str, str]
    processes_before: int | None


def cuda_tools() -> DeviceTools:
    """Those of PyTorch's current device.

    Raises:
        Unavailable: there is none.
    """
    refuse_without_cuda()
    others = other_processes()  # before this process computes on the GPU itself
    gpu = CudaClock()
    return DeviceTools(
        gpu=gpu,
        read_state=state_reader(uuid()),
        trace=kernels_of,
        used_bytes=used_bytes,
        peaks=partial(measure_peaks, gpu),
        memory_copy=partial(measure_copy, gpu),
        l2_bytes=gpu.l2_bytes,
        versions=versions(),
        processes_before=others,
    )


def uuid() -> str | None:
    """The GPU's id as NVML spells it; None where PyTorch does not know it."""
    import torch

    found = getattr(torch.cuda.get_device_properties(), "uuid", None)
    return None if found is None else f"GPU-{found}"


def versions() -> dict[str, str]:
    """The CUDA libraries that PyTorch runs with."""
    import torch

    found = {"CUDA of torch": torch.version.cuda}
    if (cudnn := torch.backends.cudnn.version()) is not None:  # type: ignore[no-untyped-call]
        found["cuDNN"] = str(cudnn)
    if torch.backends.cusparselt.is_available():
        found["cuSPARSELt"] = str(torch.backends.cusparselt.version())
    return {name: number for name, number in found.items() if number}


def other_processes() -> int | None:
    """Number of other processes that compute on the machine's GPUs; None where NVML does not tell.

    This process is subtracted by count: in a container NVML may know it by another id.
    """
    import torch

    found = processes()
    own = int(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return None if found is None else max(0, found - own)


def used_bytes() -> int:
    """Memory of the device that is in use by all processes together."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)
