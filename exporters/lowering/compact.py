"""Compact: whole rows and columns are gone, a smaller dense matrix is left.

Before: heads or neurons of the layer are wholly zero, where they are made and where they are read.
After: the matrix has only the rows and columns of those that remain. The residual stream keeps its
width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.encoder import Matrix

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compact:
    """The sub-matrix of ``rows`` and ``columns``; the rest is not stored."""

    matrix: Matrix
    weight_NK: Array
    rows: Indices
    columns: Indices

    name = "compact"

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array, *, rows: Indices, columns: Indices) -> Self:
        """Keep ``rows`` and ``columns`` of a weight."""
        return cls(
            matrix=matrix,
            weight_NK=np.ascontiguousarray(weight_NK[np.ix_(rows, columns)]),
            rows=rows,
            columns=columns,
        )

    @property
    def flops_share(self) -> float:
        """Multiplications left, as a share of the whole matrix's."""
        N, K = self.matrix.shape
        return self.weight_NK.size / (N * K)

    def stored(self) -> dict[str, NDArray[np.generic]]:
        """The constants of the graph by name; none where no row or column is left."""
        return {self.matrix.weight_name: self.weight_NK} if self.weight_NK.size else {}

    def restored(self, constants: Mapping[str, NDArray[np.generic]]) -> Array:
        """The ``[N, K]`` weight: what is stored, among zeros."""
        whole_NK = np.zeros(self.matrix.shape, np.float32)
        if self.weight_NK.size:
            whole_NK[np.ix_(self.rows, self.columns)] = constants[self.matrix.weight_name]
        return whole_NK
