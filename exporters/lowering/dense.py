"""Dense: the matrix as it is, zeros and all.

Right for dense matrices, and for zeros that nothing on the target skips.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.encoder import Matrix

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """All N x K weights are stored and multiplied."""

    matrix: Matrix
    weight_NK: Array

    name = "dense"
    flops_share = 1.0

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array) -> Self:
        """Lower a matrix; this always works."""
        return cls(matrix=matrix, weight_NK=weight_NK)

    def stored(self) -> dict[str, NDArray[np.generic]]:
        """The constants of the graph by name."""
        return {self.matrix.weight_name: self.weight_NK}

    def restored(self, constants: Mapping[str, NDArray[np.generic]]) -> Array:
        """The ``[N, K]`` weight that the stored constants amount to."""
        return np.asarray(constants[self.matrix.weight_name], np.float32)
