"""Compact: whole rows and columns are gone; what is left is lowered like a matrix of its own.

Before: heads or neurons of the layer are wholly zero, where they are made and where they are read.
After: the matrix has only the rows and columns of those that remain, dense or gathered. The
residual stream keeps its width.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.dense import Dense
from exporters.lowering.gathered import Gathered
from exporters.lowering.lowering import Cost
from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array, Constants
from exporters.onnx.graph import Graph, Name
from spd_deploy.domain.encoder import Matrix

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compact:
    """The sub-matrix of ``rows`` and ``columns`` in a lowering of its own; the rest is gone."""

    matrix: Matrix
    inner: Dense | Gathered
    rows: Indices
    columns: Indices

    @classmethod
    def of(
        cls, matrix: Matrix, inner: Dense | Gathered, *, rows: Indices, columns: Indices
    ) -> Self:
        """``inner`` is the lowering of ``weight_NK[rows][:, columns]``."""
        return cls(matrix=matrix, inner=inner, rows=rows, columns=columns)

    @property
    def name(self) -> str:
        """How what is left is run, where that is not dense."""
        return "compact" if isinstance(self.inner, Dense) else f"compact, {self.inner.name}"

    @property
    def outputs(self) -> int:
        """Rows that are left."""
        return len(self.rows)

    @property
    def inputs(self) -> int:
        """Columns that are left."""
        return len(self.columns)

    @property
    def feature_major(self) -> bool:
        """As what is left needs it."""
        return self.inner.feature_major

    @property
    def flops_share(self) -> float:
        """Multiplications left, as a share of the whole matrix's."""
        N, K = self.matrix.shape
        return self.inner.flops_share * len(self.rows) * len(self.columns) / (N * K)

    @property
    def cost(self) -> Cost:
        """That of what is left."""
        return self.inner.cost

    def on_tokens(
        self, g: Graph, by: Arithmetic, x_TK: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """What is left, with the biases of its rows."""
        return self.inner.on_tokens(g, by, x_TK, bias_N[self.rows], residual)

    def on_features(
        self, g: Graph, by: Arithmetic, x_BKS: Name, bias_N: Array, residual: Name | None
    ) -> Name:
        """What is left, with the biases of its rows."""
        return self.inner.on_features(g, by, x_BKS, bias_N[self.rows], residual)

    def restored(self, constants: Constants) -> Array:
        """What is stored, among zeros; none of it where no row or column is left."""
        whole_NK = np.zeros(self.matrix.shape, np.float32)
        if len(self.rows) and len(self.columns):
            whole_NK[np.ix_(self.rows, self.columns)] = self.inner.restored(constants)
        return whole_NK
