"""All checks of ``spd doctor``, in the order of its output."""

from collections.abc import Iterator

from spd_deploy.domain.nvidia import driver_fault, gpus
from spd_deploy.machine.check import Check, run_probe
from spd_deploy.machine.nvidia_checks import nvidia_checks
from spd_deploy.machine.openvino_checks import openvino_checks
from spd_deploy.machine.processor import processor_checks
from spd_deploy.machine.providers import provider_checks
from spd_deploy.machine.software import engine_checks, package_checks, torch_checks


def all_checks() -> Iterator[Check]:
    """Run every group of checks; a group that raises does not stop the next."""
    yield from run_probe("Processor", lambda: list(processor_checks()))
    yield from run_probe("Packages", lambda: list(package_checks()))
    yield from run_probe("ONNX Runtime", lambda: list(provider_checks(has_gpu=bool(gpus()))))
    yield from run_probe("OpenVINO", lambda: list(openvino_checks()))
    yield from run_probe("PyTorch", lambda: list(torch_checks()))
    yield from run_probe("NVIDIA", lambda: list(nvidia_checks()))
    fault = driver_fault()
    why = None if fault is None else fault.got
    yield from run_probe("Optional engines", lambda: list(engine_checks(driver_fault=why)))
