"""TensorRT 10 and 11: which of them is installed, and what a build asks of it.

Both take batches of explicit size and strongly typed networks, in which every tensor has the type
that the graph gives it; in 11 there are no others. What only some of their releases have is looked
for by name, and its absence is an error.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.engines.plan import BuildPlan, Hardware, Options
from spd_deploy.domain.engines.record import Arm
from spd_deploy.domain.errors import Unavailable

if TYPE_CHECKING:
    import tensorrt as trt

_MAJORS = (10, 11)
_LEVELS: dict[Hardware, str] = {
    "same_gpu": "NONE",
    "same_compute_capability": "SAME_COMPUTE_CAPABILITY",
    "ampere_plus": "AMPERE_PLUS",
}
# Distributions whose names tell the version of CUDA that TensorRT was built for.
_PACKAGES = ("tensorrt_cu{}", "tensorrt_cu{}_bindings", "tensorrt_cu{}_libs")
_CUDA_MAJORS = (11, 12, 13, 14)


def import_tensorrt() -> ModuleType:
    """The TensorRT module, of a version that is known here.

    Raises:
        Unavailable: it is not installed, does not load, or is of another version.
    """
    try:
        import tensorrt
    except Exception as err:  # a library that it lacks raises what it likes
        raise Unavailable(
            "TensorRT is not installed here, or does not load",
            got=err,
            fix="pip install 'spd-deploy[trt]' where there is a GPU; "
            "--runtime onnxruntime needs none of it",
        ) from err
    if not supported(str(tensorrt.__version__)):
        raise Unavailable(
            "TensorRT 10 or 11 is needed",
            got=f"TensorRT {tensorrt.__version__}",
            fix="pip install 'spd-deploy[trt]'",
        )
    return tensorrt


def supported(version: str) -> bool:
    """Whether a version is one that this project knows."""
    return numbers_of(version)[0] in _MAJORS


def numbers_of(version: str) -> tuple[int, ...]:
    """A version's numbers, two at least: ``10.13.0.35`` is (10, 13, 0, 35)."""
    digits = ["".join(c for c in part if c.isdigit()) for part in version.split(".")]
    found = tuple(int(part) for part in digits if part)
    return (*found, 0, 0)[: max(2, len(found))]


def cuda_major_of_tensorrt() -> int | None:
    """The version of CUDA that the installed TensorRT was built for, as its packages are named."""
    from spd_deploy.domain.versions import version_of

    majors = (m for m in _CUDA_MAJORS if any(version_of(p.format(m)) for p in _PACKAGES))
    return max(majors, default=None)


def network_flags(trt: ModuleType) -> int:
    """How a network is created: strongly typed, which 10 must be asked for and 11 always is."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def flags_for(trt: ModuleType, plan: BuildPlan, options: Options, arm: Arm) -> tuple[str, ...]:
    """The names of the builder's flags to set.

    Raises:
        Unavailable: this TensorRT has no such flag, so the engine would not be what was planned.
    """
    wanted: list[str] = []
    if plan.sparse_weights and arm == "sparse":
        wanted.append("SPARSE_WEIGHTS")
    if options.strict_nans:
        wanted.append("STRICT_NANS")
    if options.version_compatible:
        wanted.append("VERSION_COMPATIBLE")
    missing = [name for name in wanted if not hasattr(trt.BuilderFlag, name)]
    if missing:
        raise Unavailable(
            f"TensorRT {trt.__version__} has no {missing[0]}", fix="build with a newer TensorRT"
        )
    return tuple(wanted)


def apply_options(trt: ModuleType, config: "trt.IBuilderConfig", options: Options) -> None:
    """Workspace and compatibility with other GPUs.

    Raises:
        Unavailable: this TensorRT does not know that compatibility.
    """
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware != "same_gpu":
        level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware], None)
        if level is None:
            raise Unavailable(
                f"TensorRT {trt.__version__} does not know {options.hardware}",
                fix="build with a newer TensorRT, or with --hardware ampere_plus",
            )
        config.hardware_compatibility_level = level


def host_code_allowed(runtime: Any, options: Options) -> None:
    """A version-compatible engine brings the code it runs with along, which must be allowed."""
    if options.version_compatible:
        runtime.engine_host_code_allowed = True
