"""The runtimes of artefacts, and a user's choice of runtime and precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "torch"]
CpuRuntime = Literal["onnxruntime", "openvino"]


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


_ALL = (
    RuntimeChoice(),
    RuntimeChoice(runtime="onnxruntime"),
    RuntimeChoice(runtime="openvino"),
    RuntimeChoice(runtime="openvino", precision="bf16"),
    RuntimeChoice(runtime="tensorrt"),
    RuntimeChoice(runtime="torch"),
)
RUNTIME_CHOICES: Mapping[str, RuntimeChoice] = {str(choice): choice for choice in _ALL}
