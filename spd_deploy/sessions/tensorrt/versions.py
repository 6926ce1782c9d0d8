"""All that differs between TensorRT 8.6, 10 and 11, as far as this project uses it.

    8.6    Networks have an implicit batch unless told otherwise. Types are weak: precisions are
           flags, and a layer keeps the type it has in the graph only if it is told to. Indices of
           tokens are int32.
    10     Batches are explicit, and a network can be strongly typed: every tensor has the type
           that the graph gives it, and precision flags are refused. Contexts can be given memory
           for one profile alone.
    11     All networks are strongly typed; precision flags, types of layers and much else is gone.

The rest of the code calls what all three have. Which is there is read off the module that is
installed, feature by feature; its version is asked for only where it must be one of the three.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.engines.plan import BuildPlan, Hardware, Options
from spd_deploy.domain.engines.record import Arm
from spd_deploy.domain.errors import Unavailable

if TYPE_CHECKING:
    import tensorrt as trt

_SUPPORTED = "8.6, 10 and 11"
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
            f"this version works with TensorRT {_SUPPORTED}",
            got=tensorrt.__version__,
            fix="install one of these",
        )
    return tensorrt


def supported(version: str) -> bool:
    """Whether a version is one that this project knows."""
    major, minor = numbers_of(version)[:2]
    return major in (10, 11) or (major, minor) == (8, 6)


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
    """How a network is created: explicit batch where that is a choice, and strongly typed."""
    kinds = trt.NetworkDefinitionCreationFlag
    wanted = ["STRONGLY_TYPED"] if is_strongly_typed(trt) else ["EXPLICIT_BATCH"]
    return sum(1 << int(getattr(kinds, name)) for name in wanted)


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether tensors have the types that the graph gives them."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def flags_for(trt: ModuleType, plan: BuildPlan, options: Options, arm: Arm) -> tuple[str, ...]:
    """The names of the builder's flags to set.

    Raises:
        Unavailable: this TensorRT has no such flag, so the engine would not be what was planned.
    """
    wanted = list(_precision_flags(trt, plan))
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


def _precision_flags(trt: ModuleType, plan: BuildPlan) -> Sequence[str]:
    """What weakly typed networks need to be told of precisions that the graph has already."""
    if is_strongly_typed(trt):
        return ()
    match plan.precision:
        case "fp32":
            return ()
        case "fp16":
            return ("FP16", "OBEY_PRECISION_CONSTRAINTS")
        case "int8":
            return ("INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS")


def pin_types(trt: ModuleType, network: "trt.INetworkDefinition", plan: BuildPlan) -> None:
    """Where types are weak, let each layer compute in the type that its outputs have in the graph.

    Otherwise a layer norm of fp32 may be run in fp16, since the flag allows it. In int8 products
    are left alone: those of quantised numbers have outputs of fp32, and would be run so.
    """
    if is_strongly_typed(trt) or plan.precision == "fp32":
        return
    floats = (trt.float32, trt.float16)
    kinds = trt.LayerType
    left = [kinds.CONSTANT, kinds.SHAPE, kinds.CAST]
    if plan.precision == "int8":
        left += [kinds.MATRIX_MULTIPLY, kinds.QUANTIZE, kinds.DEQUANTIZE]
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        types = [layer.get_output(i).dtype for i in range(layer.num_outputs)]
        if layer.type in left or not types or any(kind not in floats for kind in types):
            continue
        layer.precision = types[0]
        for i, kind in enumerate(types):
            layer.set_output_type(i, kind)


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


def context_of(trt: ModuleType, engine: "trt.ICudaEngine") -> "trt.IExecutionContext | None":
    """A context; from 10 on with memory for its own profile, not for the largest of all."""
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:
        return engine.create_execution_context()
    return engine.create_execution_context(strategies.ON_PROFILE_CHANGE)


def host_code_allowed(runtime: Any, options: Options) -> None:
    """A version-compatible engine brings the code it runs with along, which must be allowed."""
    if options.version_compatible:
        runtime.engine_host_code_allowed = True
