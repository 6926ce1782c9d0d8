"""Dense: the matrix as it is, zeros and all.

Right for dense matrices, and for zeros that nothing on the target skips. Where zeros are many they
take no room on disk: values and positions are stored, and the runtime puts them together once, when
it loads the graph. That is a ``ScatterElements`` over constants, which every runtime folds. ONNX
has sparse initialisers for it, but their positions are twice as large and OpenVINO does not read
them. Only fp32 is packed: what reads a smaller weight, such as an engine's ``DequantizeLinear`` or
a 2:4 kernel, takes the constant as it is stored. So int8 at 90 % zeros takes more than fp32 does.

Before: any weight. After: the same weight.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from exporters.lowering.lowering import Cost
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants, Weight, restored
from exporters.onnx.arithmetic.float32 import added, gemm
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix

# A stored non-zero takes 8 bytes, value and position, a dense weight 4; below this density packing
# saves a third at least.
PACKED_BELOW = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """All N x K weights are multiplied; their zeros are stored unless they are ``packed``."""

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
        return Cost(operations=2.0 * self.weight_NK.size)

    def on_tokens(
        self, g: Graph, by: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """One product that adds bias and residual while it writes."""
        if self.packed and by.packs:
            return gemm(g, x_TK, self._unpacked(g), bias_N, residual)
        read = by.operand(g, x_TK, self.matrix.name)
        return by.on_tokens(g, read, self._weight, bias_N, residual)

    def on_features(
        self, g: Graph, by: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """As one group that reads all inputs."""
        if self.packed and by.packs:
            product = g.op("MatMul", self._unpacked(g), x_BKS)
            return added(g, product, bias_N[:, None], residual)
        read = by.operand(g, x_BKS, self.matrix.name)
        return by.on_features(g, read, self._weight, bias_N, residual)

    def restored(self, constants: Constants) -> Array:
        """What is stored, among zeros where it was packed."""
        stored = restored(constants, self.matrix.name)
        if self._index not in constants:
            return stored.reshape(self.matrix.shape)
        whole = np.zeros(self.weight_NK.size, np.float32)
        whole[constants[self._index]] = stored
        return whole.reshape(self.matrix.shape)

    @property
    def _weight(self) -> Weight:
        """The whole matrix as one group."""
        return Weight(name=self.matrix.name, values_GRJ=self.weight_NK[None])

    @property
    def _index(self) -> str:
        """The name of the positions."""
        return f"{self.matrix.name}.index"

    def _unpacked(self, g: Graph) -> Name:
        """The ``[N, K]`` weight from its non-zeros and where they are."""
        positions = np.flatnonzero(self.weight_NK).astype(np.int32)
        zeros = g.op("ConstantOfShape", g.ints(self.weight_NK.size))
        whole = g.op(
            "ScatterElements",
            zeros,
            g.weight(self._index, positions),
            g.weight(self.matrix.weight_name, self.weight_NK.reshape(-1)[positions]),
            axis=0,
        )
        return g.reshape(whole, *self.matrix.shape)
