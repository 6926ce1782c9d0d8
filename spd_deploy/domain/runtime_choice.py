"""The runtimes of artefacts, what each can do, and a user's choice of runtime and precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "torch"]
CpuRuntime = Literal["onnxruntime", "openvino"]
Device = Literal["cpu", "cuda"]

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
CPU_RUNTIMES: tuple[CpuRuntime, ...] = get_args(CpuRuntime)
DEVICES: tuple[Device, ...] = get_args(Device)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeTraits:
    """The facts of a runtime that are known before anything is opened in it.

    Attributes:
        title: its name as its makers write it.
        package: the Python package that has it.
        formats: the formats of artefact that it runs, the one that is made for it first.
        devices: the devices that it has here, its default first.
        portable: whether it reads the portable graph of an ``onnx`` artefact, in standard operators
            alone; ONNX Runtime has a graph of its own.
        precisions: the precisions in which it runs files, by the precision of the files; None where
            it runs all files in their own.
    """

    title: str
    package: str
    formats: tuple[str, ...]
    devices: tuple[Device, ...]
    portable: bool = True
    precisions: Mapping[str, tuple[str, ...]] | None = None

    def precisions_of(self, stored: str) -> tuple[str, ...]:
        """The precisions in which it runs files of a precision, their own first; maybe none."""
        return (stored,) if self.precisions is None else self.precisions.get(stored, ())


def traits_of(runtime: Runtime) -> RuntimeTraits:
    """The traits of a runtime."""
    match runtime:
        case "onnxruntime":
            return RuntimeTraits(
                title="ONNX Runtime",
                package="onnxruntime",
                formats=("onnx", "trt"),
                devices=("cpu", "cuda"),
                portable=False,
            )
        case "openvino":
            return RuntimeTraits(
                title="OpenVINO",
                package="openvino",
                formats=("onnx", "trt"),
                devices=("cpu",),
                precisions={"fp32": ("fp32", "bf16"), "int8": ("int8", "bf16")},
            )
        case "tensorrt":
            return RuntimeTraits(
                title="TensorRT", package="tensorrt", formats=("trt",), devices=("cuda",)
            )
        case "torch":
            return RuntimeTraits(
                title="PyTorch", package="torch", formats=("torch",), devices=("cpu", "cuda")
            )
        case never:
            assert_never(never)


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeChoice:
    """A runtime and a precision chosen by a user; None takes the artefact's own."""

    runtime: Runtime | None = None
    precision: str | None = None

    def __str__(self) -> str:
        """The value of ``--runtime``, such as ``openvino:bf16``."""
        parts = (self.runtime or "auto", self.precision)
        return ":".join(part for part in parts if part)


def computed_in(stored: str, chosen: str | None) -> str:
    """The precision in which files in ``stored`` run when ``chosen`` is the user's choice.

    Quantised operators stay quantised: an int8 artefact with bf16 runs in ``int8+bf16``.
    """
    if chosen is None or chosen == stored:
        return stored
    return chosen if stored == "fp32" else f"{stored}+{chosen}"


def runtimes_of(format_: str) -> tuple[Runtime, ...]:
    """The runtimes of a format of artefact, those that it is made for first."""
    possible = [runtime for runtime in RUNTIMES if format_ in traits_of(runtime).formats]
    return tuple(sorted(possible, key=lambda runtime: traits_of(runtime).formats.index(format_)))


def reads_portable(runtime: str | None) -> bool:
    """Whether it is one of the runtimes that read an artefact's portable graph."""
    return any(runtime == one and traits_of(one).portable for one in RUNTIMES)


def _choices() -> tuple[RuntimeChoice, ...]:
    """Every choice: auto, each runtime, and each precision that a runtime rounds fp32 to."""
    rounding = [
        RuntimeChoice(runtime=runtime, precision=precision)
        for runtime in RUNTIMES
        for precision in (None, *traits_of(runtime).precisions_of("fp32")[1:])
    ]
    return (RuntimeChoice(), *rounding)


RUNTIME_CHOICES: Mapping[str, RuntimeChoice] = {str(choice): choice for choice in _choices()}
