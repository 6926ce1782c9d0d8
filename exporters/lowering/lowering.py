"""What a lowering is: one way to run a matrix, with what it costs and how it is written."""

from dataclasses import dataclass
from typing import Protocol

from exporters.arithmetic.arithmetic import Arithmetic, Array, Constants
from exporters.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a product costs for each token: floating-point operations, and bytes moved for it.

    The cost model's two constants are what one core of an AVX-512 server does, seen on an AMD EPYC
    in November 2026: multiplying in fp32, and copying rows that lie in the cache.
    """

    flops: float
    bytes: float

    FLOPS_PER_SECOND = 83e9
    BYTES_PER_SECOND = 10e9

    @property
    def seconds(self) -> float:
        """Time of one core for one token."""
        return self.flops / self.FLOPS_PER_SECOND + self.bytes / self.BYTES_PER_SECOND


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
