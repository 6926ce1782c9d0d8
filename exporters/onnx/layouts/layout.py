"""What an encoder layer asks of a way activations lie in memory.

B rows of S tokens make T tokens; heads A are D wide.
"""

from dataclasses import dataclass
from typing import Protocol

from exporters.lowering.lowering import Lowering
from exporters.onnx.arithmetic.arithmetic import Array
from exporters.onnx.graph import Name


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The dynamic sizes as one-element vectors.

    Attributes:
        first: whether queries are the first token of each row alone, as in the last layer.
    """

    batch: Name
    sequence: Name
    first: bool = False


class Layout(Protocol):
    """The operators of a layer on activations in one layout.

    Activations are narrow, as the arithmetic has them (``exporters.onnx.arithmetic``). The inputs
    of norms and the outputs of the layers are wide.
    """

    def enter(self, x_TH: Name, axes: Axes) -> Name:
        """From token-major."""
        ...

    def linear(self, x: Name, lowering: Lowering, bias_N: Array, residual: Name | None) -> Name:
        """Product, bias, and the residual where there is one."""
        ...

    def add_bias(self, x: Name, bias_N: Array) -> Name:
        """What is left of a layer part that has nothing to multiply."""
        ...

    def norm(self, x: Name, scale_H: Array, shift_H: Array, epsilon: float) -> Name:
        """Layer norm over the features."""
        ...

    def attention(self, q: Name, k: Name, v: Name, *, heads: int, size: int, bias: Name, axes: Axes
    ) -> Name:  # fmt: skip
        """Softmax attention of ``heads`` heads; ``bias`` ``[B, 1, 1, S]`` hides the padding."""
        ...

    def first_tokens(self, x: Name, axes: Axes, width: int) -> Name:
        """Only the first token of each row."""
        ...

    def leave(self, x: Name, width: int) -> Name:
        """First tokens to ``[B, width]``."""
        ...
