"""Dense: the matrix as it is, zeros and all.

Right for dense matrices, and for zeros that nothing on the target skips. Where zeros are many they
take no room on disk: values and positions are stored, and the runtime puts them together once, when
it loads the graph. That is a ``ScatterElements`` over constants, which every runtime folds. ONNX
has sparse initialisers for it, but their positions are twice as large and OpenVINO does not read
them.

Before: any weight. After: the same weight.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.graph import Graph, Name
from exporters.lowering.lowering import Array, Constants, Cost
from exporters.operators import grouped
from spd_deploy.domain.encoder import Matrix

# A stored non-zero takes 8 bytes, value and position, a dense weight 4; below this density packing
# saves a third at least.
PACKED_BELOW = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Dense:
    """All N x K weights are multiplied; the zeros are stored unless they are ``packed``."""

    matrix: Matrix
    weight_NK: Array
    packed: bool

    name = "dense"
    flops_share = 1.0
    feature_major = False

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array) -> Self:
        """Lower a matrix; this always works."""
        N, K = weight_NK.shape
        density = np.count_nonzero(weight_NK) / max(1, weight_NK.size)
        return cls(
            matrix=replace(matrix, shape=(N, K)),
            weight_NK=weight_NK,
            packed=bool(density < PACKED_BELOW),
        )

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.weight_NK.shape[0])

    @property
    def inputs(self) -> int:
        """K."""
        return int(self.weight_NK.shape[1])

    @property
    def cost(self) -> Cost:
        """N K multiply-adds; bias and residual ride along."""
        return Cost(flops=2.0 * self.weight_NK.size, bytes=0.0)

    def on_tokens(self, g: Graph, x_TK: Name, bias_N: Array, residual: Name | None) -> Name:
        """One ``Gemm`` that adds bias and residual while it writes."""
        addend = g.constant(bias_N)
        if residual is not None:
            addend = g.op("Add", residual, addend)
        return g.op("Gemm", x_TK, self._weight(g), addend, transB=1)

    def on_features(self, g: Graph, x_BKS: Name, bias_N: Array, residual: Name | None) -> Name:
        """As one group that reads all inputs."""
        if not self.packed:
            weight = (self.matrix.weight_name, self.weight_NK[None])
            return grouped(g, x_BKS, weight, bias_N, residual)
        y = g.op("MatMul", self._weight(g), x_BKS)
        y = g.op("Add", y, g.constant(bias_N[:, None]))
        return y if residual is None else g.op("Add", y, residual)

    def restored(self, constants: Constants) -> Array:
        """What is stored, among zeros where it was packed."""
        stored = np.asarray(constants[self.matrix.weight_name], np.float32)
        if not self.packed:
            return stored.reshape(self.matrix.shape)
        whole = np.zeros(self.weight_NK.size, np.float32)
        whole[constants[self._index]] = stored
        return whole.reshape(self.matrix.shape)

    @property
    def _index(self) -> str:
        """The name of the positions."""
        return f"{self.matrix.name}.index"

    @cached_property
    def _positions(self) -> NDArray[np.int32]:
        """Where the non-zeros are in the flattened weight."""
        return np.flatnonzero(self.weight_NK).astype(np.int32)

    def _weight(self, g: Graph) -> Name:
        """The ``[N, K]`` constant."""
        if not self.packed:
            return g.weight(self.matrix.weight_name, self.weight_NK)
        values = self.weight_NK.reshape(-1)[self._positions]
        zeros = g.op("ConstantOfShape", g.ints(self.weight_NK.size))
        whole = g.op(
            "ScatterElements",
            zeros,
            g.weight(self._index, self._positions),
            g.weight(self.matrix.weight_name, values),
            axis=0,
        )
        return g.reshape(whole, *self.matrix.shape)
