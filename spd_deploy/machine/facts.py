"""The description of a machine that a benchmark's report contains."""

import platform
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
    """The machine of a measurement; no field identifies a person, a host or a path.

    Attributes:
        cores: physical cores of the machine.
        usable_cores: cores that the process may use, by affinity and container quota.
        features: instruction sets that matter for products; empty where they are unknown.
        governor: the kernel's CPU frequency governor; None where it is unknown.
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
    """The machine of this process."""
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
