"""The checks of Python, the required packages, PyTorch and TensorRT."""

import importlib.util
import platform
import re
from collections.abc import Iterator
from importlib import metadata

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.extras import install_command, missing_packages
from spd_deploy.domain.versions import PACKAGE, version_of
from spd_deploy.machine.check import Check, failed, passed
from spd_deploy.sessions.tensorrt.versions import import_tensorrt

GROUP = "Packages"
# What each extra is for.
COMMANDS = {
    "train": "spd train, prune, sweep, quickstart",
    "export": "spd export",
    "bench": "spd bench, map",
    "evaluate": "spd evaluate",
    "parquet": "spd predict and evaluate on .parquet and .zst files",
    "ray": "spd predict --ray, sweep --ray, and serving on Ray Serve",
}
SHOWN = ("torch", "transformers", "tokenizers", "onnx", "numpy", "safetensors")
_TORCH = "PyTorch"
_ENGINES = "Optional engines"
_TENSORRT = "TensorRT"
_INSTALL = "pip install 'spd-deploy[trt]' where there is a GPU"
_WITHOUT = "without it trt artefacts run with --runtime onnxruntime"


def package_checks() -> Iterator[Check]:
    """Checks of Python, the required packages, and the package that downloads data sets."""
    yield passed(GROUP, "Python", platform.python_version())
    yield required_check()
    yield from map(extra_check, COMMANDS)
    if number := version_of("datasets"):
        yield passed(GROUP, "data sets from the hub", f"datasets {number}")
    else:
        yield failed(
            GROUP,
            "data sets from the hub",
            reason="the optional package datasets is not installed",
            remedy="pip install 'spd-deploy[data]', or give your own files with --data",
        )


def required_check() -> Check:
    """Whether all required packages are installed; a source folder declares none."""
    try:
        return missing_check([name for name in required_packages() if version_of(name) is None])
    except metadata.PackageNotFoundError:
        return failed(
            GROUP,
            "required packages",
            found=_found(),
            reason=f"{PACKAGE} runs from its source folder, which does not declare its packages",
            remedy="run pip install -e . in that folder, or go on if all packages are installed",
        )


def required_packages() -> list[str]:
    """The packages that this one requires, without those of its extras."""
    declared = metadata.requires(PACKAGE) or []
    plain = [line for line in declared if "extra ==" not in line]
    return [match[0] for line in plain if (match := re.match(r"[\w.-]+", line))]


def extra_check(extra: str) -> Check:
    """Whether the commands that need an extra can run."""
    name, missing = f"extra {extra}", missing_packages(extra)
    if not missing:
        return passed(GROUP, name, COMMANDS[extra])
    return failed(
        GROUP,
        name,
        reason=f"not installed: {', '.join(missing)}; needed by {COMMANDS[extra]}",
        remedy=install_command(extra),
    )


def missing_check(missing: list[str]) -> Check:
    """Whether required packages are missing."""
    if not missing:
        return passed(GROUP, "required packages", _found())
    return failed(
        GROUP,
        "required packages",
        found=_found(),
        reason=f"not installed: {', '.join(missing)}",
        remedy=f"pip install {PACKAGE}",
    )


def _found() -> str:
    """The versions of the packages that influence results."""
    return ", ".join(f"{name} {version_of(name)}" for name in SHOWN if version_of(name))


def torch_checks() -> Iterator[Check]:
    """Checks of PyTorch's CPU kernels, its CUDA, Triton and 2:4 products."""
    if importlib.util.find_spec("torch") is None:
        yield failed(
            _TORCH,
            "torch",
            reason="it is not installed",
            remedy=f"{install_command('torch')} to run torch artefacts and checkpoints",
        )
        return
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    yield passed(_TORCH, "torch", f"{torch.__version__}, kernels for {capability}")
    yield torch_cuda_check(built_for=torch.version.cuda, works=torch.cuda.is_available())
    yield triton_check()
    yield two_four_check(
        library=torch.backends.cusparselt.is_available(), gpu=torch.cuda.is_available()
    )


def triton_check() -> Check:
    """Whether Triton imports, which our kernels and ``torch.compile`` need on a GPU."""
    name = "Triton"
    try:
        import triton
    except Exception as err:  # noqa: BLE001 - a broken installation throws what it likes
        return failed(
            _TORCH,
            name,
            found=version_of("triton"),
            reason=f"it does not import: {err}",
            remedy="pip install 'spd-deploy[triton]', or bench with --dense torch-eager",
        )
    return passed(_TORCH, name, f"triton {triton.__version__}")


def two_four_check(*, library: bool, gpu: bool) -> Check:
    """Whether PyTorch multiplies 2:4 matrices on sparse tensor cores: cuSPARSELt and a GPU.

    A CUDA build reports the library as available on machines without a GPU too.
    """
    if library and gpu:
        return passed(_TORCH, "2:4 products", "cuSPARSELt")
    return failed(
        _TORCH,
        "2:4 products",
        found="cuSPARSELt" if library else None,
        reason="PyTorch finds no GPU" if library else "this build of PyTorch has no cuSPARSELt",
        remedy="use PyTorch's CUDA build on a GPU, or a block or structured pattern",
    )


def torch_cuda_check(*, built_for: str | None, works: bool) -> Check:
    """Whether PyTorch can use a GPU; ``built_for`` is the CUDA version of its build."""
    if built_for is None:
        return failed(
            _TORCH,
            "torch on CUDA",
            reason="this build of PyTorch has no CUDA",
            remedy="install PyTorch's CUDA build to use a GPU; training also runs on the CPU",
        )
    if not works:
        return failed(
            _TORCH,
            "torch on CUDA",
            found=f"built for CUDA {built_for}",
            reason="PyTorch finds no usable GPU or driver",
            remedy="see the checks under NVIDIA; without a GPU use --device cpu",
        )
    return passed(_TORCH, "torch on CUDA", f"CUDA {built_for}")


def engine_checks(*, driver_fault: str | None) -> Iterator[Check]:
    """The check of TensorRT."""
    yield tensorrt_check(driver_fault=driver_fault)


def tensorrt_check(*, driver_fault: str | None) -> Check:
    """Whether TensorRT imports, has a supported version, and finds a working driver.

    No ``Runtime`` is created for it: without a driver TensorRT returns one that crashes.
    """
    if importlib.util.find_spec("tensorrt") is None:
        return failed(
            _ENGINES,
            _TENSORRT,
            reason="the optional package tensorrt is not installed",
            remedy=f"{_INSTALL}; {_WITHOUT}",
        )
    found = f"tensorrt {version_of('tensorrt') or 'of an unknown version'}"
    try:
        import_tensorrt()
    except Unavailable as err:
        reason = f"{err.what}: {err.got}"
        return failed(_ENGINES, _TENSORRT, found=found, reason=reason, remedy=f"{err.fix}")
    if version_of("cuda-bindings") is None:
        reason = "TensorRT engines need the package cuda-bindings, which is not installed"
        return failed(
            _ENGINES, _TENSORRT, found=found, reason=reason, remedy=f"{_INSTALL}; {_WITHOUT}"
        )
    if driver_fault is not None:
        reason = f"NVIDIA's driver: {driver_fault}"
        return failed(_ENGINES, _TENSORRT, found=found, reason=reason, remedy=_WITHOUT)
    return passed(_ENGINES, _TENSORRT, f"{found}, builds and runs engines of trt artefacts")
