"""Python and the packages: those that are needed, PyTorch's abilities, and the optional engines."""

import importlib.util
import platform
import re
from collections.abc import Iterator
from importlib import metadata

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import PACKAGE, version_of
from spd_deploy.machine.check import Check, no, yes
from spd_deploy.sessions.tensorrt.versions import import_tensorrt

GROUP = "Packages"
SHOWN = ("torch", "transformers", "tokenizers", "onnx", "numpy", "safetensors")
_TORCH = "PyTorch"
_ENGINES = "Optional engines"
_TENSORRT = "TensorRT"
_INSTALL = "pip install 'spd-deploy[trt]' where there is a GPU"
_WITHOUT = "without it trt artefacts run with --runtime onnxruntime"


def package_checks() -> Iterator[Check]:
    """Python, the packages that ``spd`` always needs, and the one that downloads data sets."""
    yield yes(GROUP, "Python", platform.python_version())
    yield required_check()
    if number := version_of("datasets"):
        yield yes(GROUP, "data sets from the hub", f"datasets {number}")
    else:
        yield no(
            GROUP,
            "data sets from the hub",
            reason="the optional package datasets is not installed",
            remedy="pip install 'spd-deploy[data]', or give your own files with --data",
        )


def required_check() -> Check:
    """Whether all that ours declares is there; a folder that is run without installing does not."""
    try:
        return missing_check([name for name in required_packages() if version_of(name) is None])
    except metadata.PackageNotFoundError:
        return no(
            GROUP,
            "required packages",
            found=_found(),
            reason=f"{PACKAGE} is run from its folder, where nothing declares what it needs",
            remedy="pip install -e . in that folder, or go on if all of it is there",
        )


def required_packages() -> list[str]:
    """The packages that ours declares without an extra."""
    declared = metadata.requires(PACKAGE) or []
    plain = [line for line in declared if "extra ==" not in line]
    return [match[0] for line in plain if (match := re.match(r"[\w.-]+", line))]


def missing_check(missing: list[str]) -> Check:
    """Whether a package that is always needed is absent."""
    if not missing:
        return yes(GROUP, "required packages", _found())
    return no(
        GROUP,
        "required packages",
        found=_found(),
        reason=f"not installed: {', '.join(missing)}",
        remedy=f"pip install {PACKAGE}",
    )


def _found() -> str:
    """The versions of the packages that shape a result."""
    return ", ".join(f"{name} {version_of(name)}" for name in SHOWN if version_of(name))


def torch_checks() -> Iterator[Check]:
    """PyTorch with the instruction set that its kernels chose, and its CUDA."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    yield yes(_TORCH, "torch", f"{torch.__version__}, kernels for {capability}")
    yield torch_cuda_check(built_for=torch.version.cuda, works=torch.cuda.is_available())
    yield triton_check()
    yield two_four_check(
        library=torch.backends.cusparselt.is_available(), gpu=torch.cuda.is_available()
    )


def triton_check() -> Check:
    """Whether ``torch.compile`` can make kernels for a GPU."""
    name = "Triton"
    try:
        import triton
    except Exception as err:  # noqa: BLE001 - a broken installation throws what it likes
        return no(
            _TORCH,
            name,
            found=version_of("triton"),
            reason=f"it does not import: {err}",
            remedy="pip install 'spd-deploy[triton]', or bench with --dense eager,onnxruntime",
        )
    return yes(_TORCH, name, f"triton {triton.__version__}")


def two_four_check(*, library: bool, gpu: bool) -> Check:
    """Whether this PyTorch multiplies 2:4 on sparse tensor cores: a library, and a GPU for it.

    A build for CUDA has the library, and says so, wherever it is.
    """
    if library and gpu:
        return yes(_TORCH, "2:4 products", "cuSPARSELt")
    return no(
        _TORCH,
        "2:4 products",
        found="cuSPARSELt" if library else None,
        reason="there is no GPU for it" if library else "this build of PyTorch has no cuSPARSELt",
        remedy="use PyTorch's CUDA build on a GPU; block and structured patterns need neither",
    )


def torch_cuda_check(*, built_for: str | None, works: bool) -> Check:
    """Whether PyTorch can use a GPU; ``built_for`` is the CUDA version of its build."""
    if built_for is None:
        return no(
            _TORCH,
            "torch on CUDA",
            reason="this build of PyTorch has no CUDA in it",
            remedy="training runs on the CPU; for a GPU install PyTorch's CUDA build",
        )
    if not works:
        return no(
            _TORCH,
            "torch on CUDA",
            found=f"built for CUDA {built_for}",
            reason="PyTorch finds no usable GPU or driver",
            remedy="see the section NVIDIA; without a GPU use --device cpu",
        )
    return yes(_TORCH, "torch on CUDA", f"CUDA {built_for}")


def engine_checks(*, driver_fault: str | None) -> Iterator[Check]:
    """TensorRT."""
    yield tensorrt_check(driver_fault=driver_fault)


def tensorrt_check(*, driver_fault: str | None) -> Check:
    """Whether TensorRT can be imported, is of a known version, and has a driver to run on.

    No ``Runtime`` is made to find out: without a driver TensorRT hands out one that crashes.
    """
    if importlib.util.find_spec("tensorrt") is None:
        return no(
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
        return no(_ENGINES, _TENSORRT, found=found, reason=reason, remedy=f"{err.fix}")
    if version_of("cuda-bindings") is None:
        reason = "it needs the package cuda-bindings, which is not installed"
        return no(_ENGINES, _TENSORRT, found=found, reason=reason, remedy=f"{_INSTALL}; {_WITHOUT}")
    if driver_fault is not None:
        reason = f"NVIDIA's driver: {driver_fault}"
        return no(_ENGINES, _TENSORRT, found=found, reason=reason, remedy=_WITHOUT)
    return yes(_ENGINES, _TENSORRT, f"{found}, builds and runs engines of trt artefacts")
