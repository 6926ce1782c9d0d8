"""The runtimes that run an artefact, and how a user asks for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Runtime = Literal["onnxruntime", "openvino"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A runtime and a precision that a user asked for; None leaves either to the artefact."""

    runtime: Runtime | None = None
    precision: str | None = None

    def __str__(self) -> str:
        """As it is spelled on the command line."""
        parts = (self.runtime or "auto", self.precision)
        return ":".join(part for part in parts if part)


_ALL = (
    Asked(),
    Asked(runtime="onnxruntime"),
    Asked(runtime="openvino"),
    Asked(runtime="openvino", precision="bf16"),
)
ASKED: Mapping[str, Asked] = {str(asked): asked for asked in _ALL}
