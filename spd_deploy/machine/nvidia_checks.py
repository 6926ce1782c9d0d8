"""The checks of NVIDIA's driver and GPUs; ``domain.nvidia`` queries the driver."""

from collections.abc import Iterator, Sequence

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.nvidia import Gpu, GpuReading, driver_fault, gpus, read_gpu
from spd_deploy.machine.check import Check, failed, passed

GROUP = "NVIDIA"
_GIB = 1 << 30
_WITHOUT = "use --device cpu here, or a machine with an NVIDIA GPU"


def nvidia_checks() -> Iterator[Check]:
    """Checks of the driver, the GPUs, their 2:4 tensor cores, and their reports of clocks."""
    found = gpus()
    yield from checks_of(found, driver_fault())
    if found:
        yield state_check(read_gpu(None, at_s=0.0), count=len(found))


def state_check(seen: GpuReading | None, *, count: int) -> Check:
    """Whether benchmarks can record clocks and throttling; with several GPUs this is assumed."""
    if seen is None and count > 1:
        return passed(GROUP, "clocks and throttling", f"reported for each of {count} GPUs")
    if seen is None or seen.state.sm_mhz is None:
        return failed(
            GROUP,
            "clocks and throttling",
            reason="the driver does not report them",
            remedy="spd bench works without them, and its report says that they are unknown",
        )
    state = seen.state
    parts = [f"SM at {state.sm_mhz:.0f} MHz"]
    parts += [f"of {state.sm_most_mhz:.0f}"] if state.sm_most_mhz is not None else []
    limit = [f", {state.power_limit_w:.0f} W at most"] if state.power_limit_w is not None else []
    return passed(GROUP, "clocks and throttling", " ".join(parts) + "".join(limit))


def checks_of(found: Sequence[Gpu], fault: Unavailable | None) -> Iterator[Check]:
    """Checks of these GPUs, or the driver's fault where it does not work."""
    if fault is not None:
        for name in ("driver", "GPU", "2:4 tensor cores"):
            yield failed(GROUP, name, reason=fault.got or fault.what, remedy=fault.fix)
        return
    yield passed(GROUP, "driver", found[0].driver if found else "no GPU listed")
    if not found:
        reason = "the driver lists no GPU"
        yield failed(GROUP, "GPU", reason=reason, remedy=_WITHOUT)
        yield failed(
            GROUP, "2:4 tensor cores", reason="there is no GPU to have them", remedy=_WITHOUT
        )
    for gpu in found:
        yield passed(GROUP, "GPU", f"{gpu.name}, {gpu.memory_bytes / _GIB:.0f} GiB")
        yield _sparse_check(gpu)


def _sparse_check(gpu: Gpu) -> Check:
    """Whether a GPU's tensor cores multiply 2:4 matrices."""
    found = f"{gpu.name}, compute capability {gpu.compute_capability}"
    if gpu.has_sparse_cores:
        return passed(GROUP, "2:4 tensor cores", found)
    return failed(
        GROUP,
        "2:4 tensor cores",
        found=found,
        reason="2:4 products need compute capability 8.0 (Ampere) or later",
        remedy="use a block or structured pattern, which runs as smaller dense products on any GPU",
    )
