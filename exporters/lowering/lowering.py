"""A lowering: how one matrix is stored and multiplied, and what that costs."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants
from exporters.onnx.graph import Graph, Name
from exporters.precision import Precision
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Work that one core does in a second, by the kinds of work of :class:`Cost`."""

    operations: float
    copies: float
    results: float


# The cost model's constants, measured on an AMD EPYC (AVX-512, VNNI) in November 2026. Copied rows
# are in the cache. In int8, copied rows are also interleaved by fours for the VNNI instruction, and
# sums are converted to fp32. fp16 is for GPUs, of which none was measured, so it has the rates of
# fp32. trt and torch artefacts do not use the cost model.
def rates_of(precision: Precision) -> Rates:
    """The rates of the cost model in a precision."""
    match precision:
        case Precision.FP32 | Precision.FP16:
            return Rates(operations=83e9, copies=2.5e9, results=math.inf)
        case Precision.INT8:
            return Rates(operations=400e9, copies=2.2e9, results=0.8e9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The work of a product for each token.

    Attributes:
        operations: multiplications and additions.
        copies: inputs that are copied before they are multiplied.
        results: outputs that need a pass of their own, in precisions where they do.
    """

    operations: float
    copies: float = 0.0
    results: float = 0.0

    def seconds(self, precision: Precision) -> float:
        """Seconds of one core for one token, by the cost model."""
        rates = rates_of(precision)
        return (
            self.operations / rates.operations
            + self.copies / rates.copies
            + self.results / rates.results
        )


class Lowering(Protocol):
    """One matrix, ready to be written into a graph.

    It may hold fewer weights than the matrix has. Every export verifies :meth:`restored`: from the
    constants of the written file it must give the checkpoint's weight, in fp32 bit for bit.
    """

    @property
    def matrix(self) -> Matrix:
        """The matrix of the encoder that is lowered."""
        ...

    @property
    def name(self) -> str:
        """The lowering's name in the manifest, such as ``gathered``."""
        ...

    @property
    def flops_share(self) -> float:
        """The share of the dense matrix's multiplications that is done, from 0 to 1."""
        ...

    @property
    def cost(self) -> Cost:
        """The work of the product for each token."""
        ...

    @property
    def outputs(self) -> int:
        """How many outputs remain."""
        ...

    @property
    def inputs(self) -> int:
        """How many inputs remain."""
        ...

    @property
    def rows(self) -> Indices:
        """The rows of the checkpoint's matrix that remain, in order."""
        ...

    @property
    def columns(self) -> Indices:
        """The columns of the checkpoint's matrix that remain, in order."""
        ...

    @property
    def values(self) -> Array:
        """The weights that are kept: ``[N, K]``, or ``[G, R, J]`` in G groups of R rows."""
        ...

    @property
    def block(self) -> Block | None:
        """The blocks that are gathered; None where every row reads all inputs that remain."""
        ...

    @property
    def index_GU(self) -> NDArray[np.int32] | None:
        """The blocks of inputs that each group of rows reads; None where ``block`` is."""
        ...

    @property
    def feature_major(self) -> bool:
        """Whether the product needs feature-major activations ``[B, features, S]``."""
        ...

    def on_tokens(
        self, g: Graph, arithmetic: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Add the product to ``g`` for an input ``[T, K]``; the result is ``[T, N]``."""
        ...

    def on_features(
        self, g: Graph, arithmetic: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Add the product to ``g`` for an input ``[B, K, S]``; the result is ``[B, N, S]``."""
        ...

    def with_inputs_scaled(self, factor_K: Array) -> "Lowering":
        """The lowering of the weight whose columns, of the inputs that remain, are multiplied."""
        ...

    def restored(self, constants: Constants) -> Array:
        """The ``[N, K]`` weight in fp32 that the stored constants stand for."""
        ...
