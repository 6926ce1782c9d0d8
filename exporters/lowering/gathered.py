"""Gathered: each group of rows reads only the inputs it kept, all groups in one product.

Activations are feature-major, so a kept input is one contiguous row and a ``Gather`` is a few
memory copies. The product that follows is dense and runs at the full rate of a dense product.

Before: blocks of R rows and C inputs, about the same number in each group of R rows. After: values
``[G, R, J]`` and the indices ``[G, k]`` of the k blocks, J = k C inputs, that each of the G groups
reads; a group with fewer non-zero blocks than k has zeros for the rest.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.lowering import Cost, Indices
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants, Weight, restored
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """A balanced block-sparse matrix as values and the indices of the blocks they belong to."""

    matrix: Matrix
    block: Block
    values_GRJ: Array
    index_GU: NDArray[np.int32]

    name = "gathered"
    feature_major = True

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array, block: Block) -> Self:
        """Lower a weight that ``block`` divides; every non-zero block is kept."""
        N, K = weight_NK.shape
        R, C = block.rows, block.columns
        blocks_GURC = weight_NK.reshape(N // R, R, K // C, C).transpose(0, 2, 1, 3)
        nonzero_GU = (blocks_GURC != 0).any((2, 3))
        kept = max(1, int(nonzero_GU.sum(1).max()))
        # A stable sort puts non-zero blocks first, in order; the first ``kept`` are read.
        index_GU = np.sort(np.argsort(~nonzero_GU, axis=1, kind="stable")[:, :kept], axis=1)
        values_GURC = np.take_along_axis(blocks_GURC, index_GU[:, :, None, None], axis=1)
        values_GRJ = values_GURC.transpose(0, 2, 1, 3).reshape(N // R, R, kept * C)
        return cls(
            matrix=replace(matrix, shape=(N, K)),
            block=block,
            values_GRJ=np.ascontiguousarray(values_GRJ),
            index_GU=index_GU.astype(np.int32),
        )

    @property
    def outputs(self) -> int:
        """N: the rows of the lowered matrix."""
        return self.matrix.shape[0]

    @property
    def inputs(self) -> int:
        """K: the columns of the lowered matrix."""
        return self.matrix.shape[1]

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
        """The values ``[G, R, J]`` of the blocks that are read."""
        return self.values_GRJ

    @property
    def flops_share(self) -> float:
        """The share of the inputs that each group of rows reads."""
        return int(self.values_GRJ.shape[2]) / self.matrix.shape[1]

    @property
    def cost(self) -> Cost:
        """The kept multiply-adds, and a copy of each kept input for every group of R rows."""
        G, R, J = self.values_GRJ.shape
        return Cost(operations=2.0 * G * R * J, copies=1.0 * G * J, results=1.0 * G * R)

    def on_tokens(
        self, g: Graph, arithmetic: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Not possible: in token-major activations a kept input is a strided column."""
        raise AssertionError("a gathered product needs feature-major activations")

    def on_features(
        self, g: Graph, arithmetic: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """Gather the kept inputs of all groups, then multiply those of each group."""
        G, _, J = self.values_GRJ.shape
        C, K = self.block.columns, self.matrix.shape[1]
        index = g.weight(f"{self.matrix.name}.index", self.index_GU.reshape(-1))
        whole = arithmetic.operand(g, x_BKS, self.matrix.name)
        if C == 1:
            read = g.op("Gather", whole.values, index, axis=1)
        else:  # a block of C inputs is C contiguous rows, so one row of C S numbers
            blocks = g.reshape(whole.values, 0, K // C, -1)
            read = g.reshape(g.op("Gather", blocks, index, axis=1), 0, G * J, -1)
        weight = Weight(name=self.matrix.name, values_GRJ=self.values_GRJ)
        return arithmetic.on_features(g, replace(whole, values=read), weight, bias_N, residual)

    def with_inputs_scaled(self, factor_K: Array) -> Self:
        """The values of each group times the factors of the inputs that the group reads."""
        factor_UC = factor_K.reshape(-1, self.block.columns)
        factor_GJ = factor_UC[self.index_GU].reshape(len(self.index_GU), -1)
        return replace(self, values_GRJ=self.values_GRJ * factor_GJ[:, None])

    def restored(self, constants: Constants) -> Array:
        """The values of each group at the blocks it reads, and zeros elsewhere."""
        G, R, J = self.values_GRJ.shape
        N, K = self.matrix.shape
        C = self.block.columns
        values = restored(constants, self.matrix.name)
        index_GU = np.asarray(constants[f"{self.matrix.name}.index"], np.int64).reshape(G, -1)
        blocks_GURC = np.zeros((G, K // C, R, C), np.float32)
        values_GURC = values.reshape(G, R, J // C, C).transpose(0, 2, 1, 3)
        np.put_along_axis(blocks_GURC, index_GU[:, :, None, None], values_GURC, axis=1)
        return blocks_GURC.transpose(0, 2, 1, 3).reshape(N, K)
