"""What a lowering is: one way to run a matrix, with what it costs and how it is written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants
from exporters.onnx.graph import Graph, Name
from exporters.precision import Precision
from spd_deploy.domain.encoder import Matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What one core does in a second; the attributes are those of :class:`Cost`."""

    operations: float
    copies: float
    results: float


# The cost model's constants, seen on an AMD EPYC (AVX-512, VNNI) in November 2026. Copied rows lie
# in the cache; int8 ones must also be woven together by fours for the product's instruction, and
# their sums be made numbers of fp32 again. fp16 is a GPU's, of which none was measured: an ONNX
# artefact of it is lowered by fp32's. A trt or torch artefact goes by none of these.
RATES: Mapping[Precision, Rates] = {
    Precision.FP32: Rates(operations=83e9, copies=2.5e9, results=math.inf),
    Precision.FP16: Rates(operations=83e9, copies=2.5e9, results=math.inf),
    Precision.INT8: Rates(operations=400e9, copies=2.2e9, results=0.8e9),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a product costs for each token.

    Attributes:
        operations: multiplications and additions.
        copies: inputs copied to where they are read.
        results: outputs that take passes of their own, where a precision needs them.
    """

    operations: float
    copies: float = 0.0
    results: float = 0.0

    def seconds(self, precision: Precision) -> float:
        """Time of one core for one token, by the cost model."""
        rates = RATES[precision]
        return (
            self.operations / rates.operations
            + self.copies / rates.copies
            + self.results / rates.results
        )


class Lowering(Protocol):
    """One matrix, ready to be emitted.

    What it holds may be smaller than the matrix; :meth:`restored` is its checked post-condition:
    from the constants as stored in a file it gives the checkpoint's weight, in fp32 bit for bit.
    """

    @property
    def matrix(self) -> Matrix:
        """Which matrix it runs."""
        ...

    @property
    def name(self) -> str:
        """Such as ``gathered``."""
        ...

    @property
    def flops_share(self) -> float:
        """Multiplications left, as a share of the dense matrix's."""
        ...

    @property
    def cost(self) -> Cost:
        """What it costs for each token."""
        ...

    @property
    def outputs(self) -> int:
        """How many outputs are left."""
        ...

    @property
    def inputs(self) -> int:
        """How many inputs are left."""
        ...

    @property
    def feature_major(self) -> bool:
        """Whether it needs activations to lie feature-major."""
        ...

    def on_tokens(
        self, g: Graph, by: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Emit for ``[T, K]``; the result is ``[T, N]``."""
        ...

    def on_features(
        self, g: Graph, by: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Emit for ``[B, K, S]``; the result is ``[B, N, S]``."""
        ...

    def restored(self, constants: Constants) -> Array:
        """The ``[N, K]`` weight that the stored constants amount to."""
        ...
