"""Gathered: each group of rows reads only the inputs it kept, all groups in one batched product.

Activations lie feature-major, ``[features, tokens]``, so a kept input is one contiguous row and a
``Gather`` is a few memory copies. Only standard operators, so it runs wherever ONNX does.

Before: blocks of R rows and C inputs, about the same number in each group of R rows. After: values
``[G, R, k C]`` and the indices ``[G, k]`` of the k blocks that each of the G groups reads; a group
with fewer non-zero blocks than k has zeros for the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.patterns import Block

Array = NDArray[np.float32]

# Copying one activation costs about as much as this many multiply-adds: one core copies about
# 10 GB/s and multiplies about 70 GFLOP/s in fp32. The cost model's only constant.
COPY_COST = 28
# A gathered product must promise at least this gain over the dense one to be chosen unmeasured.
LEAST_GAIN = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """A balanced block-sparse matrix as values and the indices of the blocks they belong to."""

    matrix: Matrix
    block: Block
    values_GRJ: Array
    index_GU: NDArray[np.int32]

    name = "gathered"

    @classmethod
    def of(cls, matrix: Matrix, weight_NK: Array, block: Block) -> Self:
        """Lower a weight that ``block`` divides; every non-zero block is kept."""
        N, K = weight_NK.shape
        R, C = block.rows, block.columns
        blocks_GURC = weight_NK.reshape(N // R, R, K // C, C).transpose(0, 2, 1, 3)
        alive_GU = (blocks_GURC != 0).any((2, 3))
        kept = max(1, int(alive_GU.sum(1).max()))
        # A stable sort puts non-zero blocks first, in order; the first ``kept`` are read.
        index_GU = np.sort(np.argsort(~alive_GU, axis=1, kind="stable")[:, :kept], axis=1)
        values_GURC = np.take_along_axis(blocks_GURC, index_GU[:, :, None, None], axis=1)
        values_GRJ = values_GURC.transpose(0, 2, 1, 3).reshape(N // R, R, kept * C)
        return cls(
            matrix=matrix,
            block=block,
            values_GRJ=np.ascontiguousarray(values_GRJ),
            index_GU=index_GU.astype(np.int32),
        )

    @property
    def flops_share(self) -> float:
        """Multiplications left, as a share of the whole matrix's."""
        return int(self.values_GRJ.shape[2]) / self.matrix.shape[1]

    @property
    def expected_gain(self) -> float:
        """Speed-up over the dense product that the cost model promises.

        Dense: N K multiply-adds a token. Gathered: the kept ones, and a copy of each kept input
        for every group of R rows.
        """
        return 1 / (self.flops_share * (1 + COPY_COST / self.block.rows))

    def stored(self) -> dict[str, NDArray[np.generic]]:
        """The constants of the graph by name."""
        return {
            self.matrix.weight_name: self.values_GRJ,
            f"{self.matrix.name}.index": self.index_GU,
        }

    def restored(self, constants: Mapping[str, NDArray[np.generic]]) -> Array:
        """The ``[N, K]`` weight: each group's values at the blocks it reads."""
        values_GRJ = np.asarray(constants[self.matrix.weight_name], np.float32)
        index_GU = np.asarray(constants[f"{self.matrix.name}.index"], np.int64)
        G, R, _ = values_GRJ.shape
        N, K = self.matrix.shape
        C = self.block.columns
        blocks_GURC = np.zeros((G, K // C, R, C), np.float32)
        values_GURC = values_GRJ.reshape(G, R, -1, C).transpose(0, 2, 1, 3)
        np.put_along_axis(blocks_GURC, index_GU[:, :, None, None], values_GURC, axis=1)
        return blocks_GURC.transpose(0, 2, 1, 3).reshape(N, K)
