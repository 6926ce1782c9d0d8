"""The machine as a benchmark's report records it, and what else it was doing meanwhile."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass

from spd_deploy.domain.cores import physical_cores, usable_cores
from spd_deploy.domain.nvidia import Gpu, driver_cuda, gpus
from spd_deploy.domain.versions import versions_of
from spd_deploy.machine.processor import (
    cpu_features,
    cpu_name,
    governor,
    memory_bytes,
)

_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "onnx",
    "torch",
    "triton",
    "transformers",
    "numpy",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where something was measured; nothing in it names a person, a host or a path.

    Attributes:
        cores: physical cores of the machine.
        usable_cores: cores that the process could use, after affinity and container quota.
        features: instruction sets that matter here; none where the system does not tell.
        governor: how the kernel sets the clock; None where it does not say.
        driver_cuda: the newest CUDA that the GPU's driver runs; None without a driver.
    """

    cpu: str
    cores: int
    usable_cores: float
    features: tuple[str, ...]
    memory_bytes: int
    governor: str | None
    system: str
    python: str
    versions: Mapping[str, str]
    gpus: tuple[Gpu, ...]
    driver_cuda: str | None = None


def this_machine() -> Machine:
    """The machine this runs on."""
    return Machine(
        cpu=cpu_name(),
        cores=physical_cores(),
        usable_cores=usable_cores(),
        features=cpu_features() or (),
        memory_bytes=memory_bytes(),
        governor=governor(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions_of(*_PACKAGES),
        gpus=gpus(),
        driver_cuda=driver_cuda(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Processor seconds spent up to now: by the whole machine and by this process."""

    clock_s: float
    machine_s: float
    own_s: float


def moment() -> Moment:
    """Now. Time stolen by other guests of the same host counts as the machine's."""
    import psutil

    times = psutil.cpu_times()._asdict()
    busy = ("user", "nice", "system", "irq", "softirq", "steal")
    own = psutil.Process().cpu_times()
    return Moment(
        clock_s=time.perf_counter(),
        machine_s=sum(float(times.get(kind, 0.0)) for kind in busy),
        own_s=own.user + own.system,
    )


def others_cores(before: Moment, after: Moment) -> float:
    """How many cores others kept busy between two moments, on average."""
    elapsed_s = max(after.clock_s - before.clock_s, 1e-9)
    others_s = (after.machine_s - before.machine_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / elapsed_s)


def load_now() -> float | None:
    """Processes that wanted to run over the last minute; None where the system does not count."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
