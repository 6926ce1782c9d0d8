"""The sum of x^T x over batches, of which half is computed."""

import pytest
import torch

from spd_train.pruning.gram import GramSum


@pytest.mark.parametrize("size", [3, 384, 385, 900])
def test_the_total_is_the_whole_product(size: int) -> None:
    """Over two batches with weights of their own it is what whole products add up to."""
    draw = torch.Generator().manual_seed(0)
    x_TK, y_TK = torch.randn(7, size, generator=draw), torch.randn(5, size, generator=draw)
    found = GramSum(size, torch.device("cpu"))
    found.add(x_TK, weight=0.5)
    found.add(y_TK)

    torch.testing.assert_close(
        found.total(), 0.5 * x_TK.T @ x_TK + y_TK.T @ y_TK, atol=1e-4, rtol=1e-5
    )
