"""All that a run needs of the device, in one value, so that a simulated one can stand in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

from spd_deploy.benchmark.device.device_records import MemoryCopy, Peak, Skipped, TracedKernel
from spd_deploy.benchmark.device.limits import measure_copy, measure_peaks
from spd_deploy.benchmark.device.trace_kernels import kernels_of
from spd_deploy.benchmark.device.watch_gpu import Looker, looker_of
from spd_deploy.domain.nvidia import processes
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.timing.cuda_clock import CudaClock, DeviceClock
from spd_deploy.timing.host_clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTools:
    """A GPU with its clock and limits, and what is known of it.

    Attributes:
        gpu: marks time on its streams.
        clock: the host's.
        look: tells its state.
        trace: tells what kernels a run launches.
        used_bytes: tells how much of its memory is in use.
        peaks: measures its rate of products, and tells in which precisions it has none.
        copied: measures its rate of copies.
        processes_before: others that computed on the machine's GPUs before this one did.
    """

    gpu: DeviceClock
    clock: Clock
    look: Looker
    trace: Callable[[Callable[[], object]], tuple[TracedKernel, ...] | None]
    used_bytes: Callable[[], int]
    peaks: Callable[[], tuple[tuple[Peak, ...], tuple[Skipped, ...]]]
    copied: Callable[[], MemoryCopy]
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
        clock=perf_counter_ns,
        look=looker_of(uuid()),
        trace=kernels_of,
        used_bytes=used_bytes,
        peaks=partial(measure_peaks, gpu),
        copied=partial(measure_copy, gpu),
        l2_bytes=gpu.l2_bytes,
        versions=versions(),
        processes_before=others,
    )


def uuid() -> str | None:
    """The GPU's id as NVML spells it; None where PyTorch does not tell."""
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
    """How many other processes compute on the machine's GPUs; None where it is not told.

    By their number, since in a container NVML may know this one by another id.
    """
    import torch

    found = processes()
    own = int(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return None if found is None else max(0, found - own)


def used_bytes() -> int:
    """The device's memory that is in use, by whomever."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)
