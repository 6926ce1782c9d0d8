"""Compact: rows and columns of zero heads or neurons are removed; the rest is a smaller matrix.

Before: some heads or neurons of the layer have only zeros, in the matrix that produces them and in
the one that reads them. After: the matrix has only the rows and columns that remain, dense or
gathered. The residual stream keeps its width.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.lowering import Cost, Indices, Lowering
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block

Heads = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compact:
    """The sub-matrix of ``rows`` and ``columns``, in the lowering ``inner``."""

    matrix: Matrix
    inner: Lowering
    rows: Indices
    columns: Indices

    @classmethod
    def of(cls, matrix: Matrix, inner: Lowering, *, rows: Indices, columns: Indices) -> Self:
        """``inner`` is the lowering of ``weight_NK[rows][:, columns]``."""
        return cls(matrix=matrix, inner=inner, rows=rows, columns=columns)

    @property
    def name(self) -> str:
        """``compact``, with the name of the inner lowering where that is not dense."""
        return "compact" if self.inner.name == "dense" else f"compact, {self.inner.name}"

    @property
    def outputs(self) -> int:
        """How many rows remain."""
        return len(self.rows)

    @property
    def inputs(self) -> int:
        """How many columns remain."""
        return len(self.columns)

    @property
    def values(self) -> Array:
        """The weights that the inner lowering keeps."""
        return self.inner.values

    @property
    def block(self) -> Block | None:
        """The blocks that the inner lowering gathers."""
        return self.inner.block

    @property
    def index_GU(self) -> NDArray[np.int32] | None:
        """The blocks that each group reads, counted among the columns that remain."""
        return self.inner.index_GU

    @property
    def feature_major(self) -> bool:
        """Whether the inner lowering needs feature-major activations."""
        return self.inner.feature_major

    @property
    def flops_share(self) -> float:
        """The share of the whole matrix's multiplications that is done."""
        N, K = self.matrix.shape
        return self.inner.flops_share * len(self.rows) * len(self.columns) / (N * K)

    @property
    def cost(self) -> Cost:
        """The work of the inner lowering."""
        return self.inner.cost

    def on_tokens(
        self, g: Graph, arithmetic: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """The inner product, with the biases of the rows that remain."""
        return self.inner.on_tokens(g, arithmetic, x_TK, bias_N[self.rows], residual)

    def on_features(
        self, g: Graph, arithmetic: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """The inner product, with the biases of the rows that remain."""
        return self.inner.on_features(g, arithmetic, x_BKS, bias_N[self.rows], residual)

    def with_inputs_scaled(self, factor_K: Array) -> Self:
        """The inner lowering with the columns that remain multiplied."""
        return replace(self, inner=self.inner.with_inputs_scaled(factor_K))

    def restored(self, constants: Constants) -> Array:
        """The stored sub-matrix among zeros; only zeros where no row or column remains."""
        whole_NK = np.zeros(self.matrix.shape, np.float32)
        if len(self.rows) and len(self.columns):
            whole_NK[np.ix_(self.rows, self.columns)] = self.inner.restored(constants)
        return whole_NK


def kept_heads(query: Lowering, head_size: int) -> Heads:
    """The heads that a layer keeps, by the rows that remain of its query matrix."""
    return tuple((query.rows[::head_size] // head_size).tolist())
