"""What is launched stays within what CUDA takes, for batches that no interpreter could run."""

from typing import Any

import pytest
import torch

from spd_deploy.kernels import launch
from spd_deploy.kernels.sources import attention as attention_source

# CUDA's limits of a grid.
MAX_X, MAX_Y = 2**31 - 1, 65535


class Recorder:
    """Stands in for a kernel, and keeps the grid that it is launched with."""

    grid: tuple[int, ...] = ()

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grid = grid
        return lambda *_, **__: None


@pytest.mark.parametrize(("rows", "heads", "tokens"), [(8192, 16, 128), (2, 12, 8192), (1, 1, 1)])
def test_attention_takes_any_batch(
    rows: int, heads: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query of every head of every row has a program, and no axis is too long."""
    kernel = Recorder()
    monkeypatch.setattr(attention_source, "attention", kernel)
    q = torch.empty(heads * 64, rows * tokens, device="meta", dtype=torch.float16)

    launch.attention(q, q, q, torch.empty(rows, tokens, device="meta"), heads=heads)

    x, y = kernel.grid
    assert x == rows * heads <= MAX_X
    assert y == -(-tokens // 64) <= MAX_Y
