"""TensorRT 10 and 11: the installed version, and the flags of a build.

Both versions have explicit batch sizes and strongly typed networks, in which every tensor has the
type that the graph gives it; version 11 has no other networks. Features that only some releases
have are looked up by name, and a missing one is an error.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import Unavailable
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, HardwareCompatibility, Options
from spd_deploy.sessions.tensorrt.engine_record import Variant

if TYPE_CHECKING:
    import tensorrt as trt

_MAJORS = (10, 11)
_LEVELS: dict[HardwareCompatibility, str] = {
    "same_gpu": "NONE",
    "same_compute_capability": "SAME_COMPUTE_CAPABILITY",
    "ampere_plus": "AMPERE_PLUS",
}
# Packages whose names tell the CUDA version that TensorRT was built for.
_PACKAGES = ("tensorrt_cu{}", "tensorrt_cu{}_bindings", "tensorrt_cu{}_libs")
_CUDA_MAJORS = (11, 12, 13, 14)


def import_tensorrt() -> ModuleType:
    """Import TensorRT in a supported version.

    Raises:
        Unavailable: it is not installed, does not load, or its version is not supported.
    """
    try:
        import tensorrt
    except Exception as err:  # a missing library raises errors of any class
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
    """Whether a version of TensorRT is supported: 10 or 11."""
    return numbers_of(version)[0] in _MAJORS


def numbers_of(version: str) -> tuple[int, ...]:
    """A version as at least two numbers: ``10.13.0.35`` is (10, 13, 0, 35)."""
    digits = ["".join(c for c in part if c.isdigit()) for part in version.split(".")]
    found = tuple(int(part) for part in digits if part)
    return (*found, 0, 0)[: max(2, len(found))]


def cuda_major_of_tensorrt() -> int | None:
    """The CUDA major version that TensorRT was built for, from the names of its packages."""
    from spd_deploy.domain.versions import version_of

    majors = (m for m in _CUDA_MAJORS if any(version_of(p.format(m)) for p in _PACKAGES))
    return max(majors, default=None)


def network_flags(trt: ModuleType) -> int:
    """Flags of ``create_network``: strongly typed, which TensorRT 10 needs and 11 always is."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def flags_for(
    trt: ModuleType, plan: BuildPlan, options: Options, variant: Variant
) -> tuple[str, ...]:
    """The names of the ``BuilderFlag`` values to set.

    Raises:
        Unavailable: this TensorRT lacks a flag that the plan needs.
    """
    wanted: list[str] = []
    if plan.sparse_weights and variant == "sparse":
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
    """Set the workspace limit and the hardware compatibility level of a build.

    Raises:
        Unavailable: this TensorRT has no such compatibility level.
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
    """Allow the host code that a version-compatible engine carries with it."""
    if options.version_compatible:
        runtime.engine_host_code_allowed = True
