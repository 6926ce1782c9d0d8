"""All that a run needs of the device, in one value, so that a simulated one can stand in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

from spd_deploy.benchmark.cuda.kernels import kernels_of
from spd_deploy.benchmark.cuda.limits import measure_copy, measure_peaks
from spd_deploy.benchmark.cuda.place import (
    CudaGpu,
    Gpu,
    other_processes,
    refuse_without_cuda,
    used_bytes,
    uuid,
    versions,
)
from spd_deploy.benchmark.cuda.watch import Looker, looker_of
from spd_deploy.benchmark.gpu_values import Absent, Copied, Kernel, Peak
from spd_deploy.timing.host_clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
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

    gpu: Gpu
    clock: Clock
    look: Looker
    trace: Callable[[Callable[[], object]], tuple[Kernel, ...] | None]
    used_bytes: Callable[[], int]
    peaks: Callable[[], tuple[tuple[Peak, ...], tuple[Absent, ...]]]
    copied: Callable[[], Copied]
    l2_bytes: int
    versions: Mapping[str, str]
    processes_before: int | None


def cuda_tools() -> Tools:
    """Those of PyTorch's current device.

    Raises:
        Unavailable: there is none.
    """
    refuse_without_cuda()
    others = other_processes()  # before this process computes on the GPU itself
    gpu = CudaGpu()
    return Tools(
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
