"""Sums of x^T x over batches: half of such a product is the other half, so it is computed once."""

import torch
from torch import Tensor

# Columns of a block. Blocks of this size multiply as fast as whole matrices.
_BLOCK = 384


class GramSum:
    """The sum over batches of x^T x ``[K, K]``, for inputs x of K numbers."""

    def __init__(self, size: int, device: torch.device) -> None:
        """Start from zero, in fp32."""
        self._sum_KK = torch.zeros(size, size, device=device)

    def add(self, x_TK: Tensor, *, weight: float = 1.0) -> None:
        """Add ``weight`` times x^T x of a batch of T tokens, in fp32."""
        x_TK = x_TK.float()
        for first in range(0, x_TK.shape[1], _BLOCK):
            last = min(first + _BLOCK, x_TK.shape[1])
            rows_RK = self._sum_KK[first:last, first:]
            rows_RK.addmm_(x_TK[:, first:last].T, x_TK[:, first:], alpha=weight)

    def total(self) -> Tensor:
        """The whole sum, which is symmetric."""
        upper_KK = self._sum_KK.triu()
        return upper_KK + upper_KK.triu(1).T
