"""Which kernels a run launches, traced by the driver's own profiling interface through PyTorch.

It sees the kernels of every runtime in the process, those inside CUDA graphs too, so what a report
says of an arm's kernels does not rest on the arm's word.

Between two traces the interface stays attached: to detach it and attach it anew crashes where CUDA
graphs were captured before (PyTorch's profiler does the same for graphs that it knows of). So
nothing is timed after the first trace.
"""

import os
from collections.abc import Callable

from spd_deploy.benchmark.device.device_records import TracedKernel

_NO_KERNELS = ("Memcpy", "Memset")


def kernels_of(run: Callable[[], object]) -> tuple[TracedKernel, ...] | None:
    """The kernels of one run, the longest first; None where this system lets nothing be traced."""
    import torch
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():  # type: ignore[no-untyped-call]
        return None
    os.environ.update(TEARDOWN_CUPTI="0", DISABLE_CUPTI_LAZY_REINIT="1")
    run()  # what is made at first use is not the run's
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
