"""The runtimes that run an artefact, and how a user asks for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "torch"]
CpuRuntime = Literal["onnxruntime", "openvino"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeChoice:
    """A runtime and a precision that a user asked for; None leaves either to the artefact."""

    runtime: Runtime | None = None
    precision: str | None = None

    def __str__(self) -> str:
        """As it is spelled on the command line."""
        parts = (self.runtime or "auto", self.precision)
        return ":".join(part for part in parts if part)


def computed_in(stored: str, asked: str | None) -> str:
    """The precision that files of one precision are computed in when another is asked for.

    What is quantised stays so: an int8 artefact asked for in bf16 runs in ``int8+bf16``.
    """
    if asked is None or asked == stored:
        return stored
    return asked if stored == "fp32" else f"{stored}+{asked}"


_ALL = (
    RuntimeChoice(),
    RuntimeChoice(runtime="onnxruntime"),
    RuntimeChoice(runtime="openvino"),
    RuntimeChoice(runtime="openvino", precision="bf16"),
    RuntimeChoice(runtime="tensorrt"),
    RuntimeChoice(runtime="torch"),
)
RUNTIME_CHOICES: Mapping[str, RuntimeChoice] = {str(asked): asked for asked in _ALL}
