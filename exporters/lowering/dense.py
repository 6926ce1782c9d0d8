"""Dense: the whole matrix is multiplied, with all its zeros.

For dense matrices, and for zeros that no kernel of the target skips. A matrix with many zeros is
packed: the file holds the non-zero values and their positions, and the runtime makes the matrix of
them once, when it loads the graph. That is a ``ScatterElements`` over constants, which every
runtime folds. ONNX has sparse initialisers for this, but their positions are twice as large, and
OpenVINO does not read them. Only fp32 is packed: readers of smaller weights, such as TensorRT's
``DequantizeLinear`` and 2:4 kernels, need the constant as it is. So at 90 % zeros an int8 file is
larger than an fp32 one.

Before: any weight. After: the same weight.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from exporters.lowering.lowering import Cost, Indices
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants, Weight, restored
from exporters.onnx.arithmetic.float32 import added, gemm
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix

# A packed weight takes 8 bytes, for value and position; an unpacked one takes 4. Below this density
# packing saves at least a third.
PACKED_BELOW = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """All N x K weights are multiplied; zeros are left out of the file where it is ``packed``."""

    matrix: Matrix
    weight_NK: Array
    packed: bool

    name = "dense"
    flops_share = 1.0
    feature_major = False

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array) -> Self:
        """Lower a matrix; every matrix can be dense."""
        N, K = weight_NK.shape
        density = np.count_nonzero(weight_NK) / max(1, weight_NK.size)
        return cls(
            matrix=replace(matrix, shape=(N, K)),
            weight_NK=weight_NK,
            # OpenVINO reads no empty constant, so a matrix of zeros alone is not packed.
            packed=bool(0 < density < PACKED_BELOW),
        )

    @property
    def outputs(self) -> int:
        """N: the rows of the matrix."""
        return int(self.weight_NK.shape[0])

    @property
    def inputs(self) -> int:
        """K: the columns of the matrix."""
        return int(self.weight_NK.shape[1])

    @property
    def rows(self) -> Indices:
        """All N rows remain."""
        return np.arange(self.outputs)

    @property
    def columns(self) -> Indices:
        """All K columns remain."""
        return np.arange(self.inputs)

    @property
    def values(self) -> Array:
        """The whole weight, with its zeros."""
        return self.weight_NK

    @property
    def block(self) -> None:
        """No blocks: every row reads all inputs."""

    @property
    def index_GU(self) -> None:
        """No blocks are gathered, so none are listed."""

    @property
    def cost(self) -> Cost:
        """N K multiply-adds; bias and residual are added in the same pass."""
        return Cost(operations=2.0 * self.weight_NK.size)

    def on_tokens(
        self, g: Graph, arithmetic: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """One product that adds bias and residual while it writes."""
        if self.packed and arithmetic.packs:
            return gemm(g, x_TK, self._unpacked(g), bias_N, residual)
        read = arithmetic.operand(g, x_TK, self.matrix.name)
        return arithmetic.on_tokens(g, read, self._weight, bias_N, residual)

    def on_features(
        self, g: Graph, arithmetic: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """One product, as one group that reads all inputs."""
        if self.packed and arithmetic.packs:
            product = g.op("MatMul", self._unpacked(g), x_BKS)
            return added(g, product, bias_N[:, None], residual)
        read = arithmetic.operand(g, x_BKS, self.matrix.name)
        return arithmetic.on_features(g, read, self._weight, bias_N, residual)

    def with_inputs_scaled(self, factor_K: Array) -> Self:
        """Each column times its factor."""
        return replace(self, weight_NK=self.weight_NK * factor_K)

    def restored(self, constants: Constants) -> Array:
        """The stored weight; a packed one among zeros."""
        stored = restored(constants, self.matrix.name)
        if self._index not in constants:
            return stored.reshape(self.matrix.shape)
        whole = np.zeros(self.weight_NK.size, np.float32)
        whole[constants[self._index]] = stored
        return whole.reshape(self.matrix.shape)

    @property
    def _weight(self) -> Weight:
        """The whole matrix as one group of rows."""
        return Weight(name=self.matrix.name, values_GRJ=self.weight_NK[None])

    @property
    def _index(self) -> str:
        """The name of the constant with the positions of a packed weight."""
        return f"{self.matrix.name}.index"

    def _unpacked(self, g: Graph) -> Name:
        """Add the operators that make the ``[N, K]`` weight of its values and positions."""
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
