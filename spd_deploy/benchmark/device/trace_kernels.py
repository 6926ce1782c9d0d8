"""Traces the kernels that a run launches, by the driver's profiling interface through PyTorch.

The interface sees the kernels of every runtime in the process, also inside CUDA graphs. So a report
does not depend on what a session says of its kernels.

The interface stays attached between two traces: to detach and attach it again crashes where CUDA
graphs were captured before (PyTorch's profiler does the same for graphs that it knows of). So
nothing is timed after the first trace.
"""

import os
from collections.abc import Callable

from spd_deploy.benchmark.device.device_records import TracedKernel

_NO_KERNELS = ("Memcpy", "Memset")


def kernels_of(run: Callable[[], object]) -> tuple[TracedKernel, ...] | None:
    """The kernels of one run, the longest first; None where this system allows no tracing."""
    import torch
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():  # type: ignore[no-untyped-call]
        return None
    os.environ.update(TEARDOWN_CUPTI="0", DISABLE_CUPTI_LAZY_REINIT="1")
    run()  # the first run also creates what later runs reuse
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    found = [
        TracedKernel(name=event.key, calls=event.count, seconds=event.self_device_time_total / 1e6)
        for event in seen.key_averages()
        if event.device_type == DeviceType.CUDA and not event.key.startswith(_NO_KERNELS)
    ]
    return tuple(sorted(found, key=lambda kernel: -kernel.seconds)) or None
