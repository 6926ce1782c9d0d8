"""Random block-sparse products, and what dense PyTorch makes of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.eager import activated
from spd_deploy.kernels.weights import BlockWeight, dtype_of

# How far a sum of random products may be off, for numbers of about 1: half of the last bit that the
# result keeps, and in fp32 what another order of additions makes.
CLOSE = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A weight as it is stored, as the kernel reads it, and dense."""

    values_GRJ: Tensor
    index_GU: Tensor
    weight: BlockWeight
    dense_NK: Tensor


def made(
    groups: int,
    rows: int,
    kept: int,
    blocks: int,
    *,
    columns: int = 1,
    dtype: FloatType = "fp16",
    seed: int = 0,
    device: str = "cpu",
) -> Made:
    """``groups`` of ``rows``, each with ``kept`` of ``blocks`` blocks of ``columns`` inputs."""
    draw = torch.Generator().manual_seed(seed)
    scale = (kept * columns) ** -0.5
    values = torch.randn(groups, rows, kept * columns, generator=draw) * scale
    values_GRJ = values.to(dtype_of(dtype))
    order = torch.stack([torch.randperm(blocks, generator=draw) for _ in range(groups)])
    index_GU = order[:, :kept].sort(1).values.int()
    bias_N = torch.randn(groups * rows, generator=draw)
    dense = torch.zeros(groups, rows, blocks, columns)
    for g in range(groups):
        dense[g][:, index_GU[g].long()] = values_GRJ[g].float().reshape(rows, kept, columns)
    return Made(
        values_GRJ=values_GRJ,
        index_GU=index_GU,
        weight=BlockWeight.of(
            values_GRJ.to(device),
            index_GU.to(device),
            bias_N.to(device),
            columns=columns,
            inputs=blocks * columns,
        ),
        dense_NK=dense.reshape(groups * rows, blocks * columns),
    )


def activations(features: int, tokens: int, dtype: FloatType = "fp16", seed: int = 1) -> Tensor:
    """Random activations ``[features, tokens]``."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(features, tokens, generator=draw).to(dtype_of(dtype))


def expected(
    product: Made, x_KT: Tensor, *, activation: str = "none", residual_NT: Tensor | None = None
) -> Tensor:
    """The dense product in fp32."""
    bias_N = product.weight.bias_N.cpu()
    y_NT = activated(product.dense_NK @ x_KT.float() + bias_N[:, None], activation)
    return y_NT if residual_NT is None else y_NT + residual_NT.float()


def off(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, in units of max(1, what is wanted)."""
    difference = (found.float().cpu() - wanted).abs() / wanted.abs().clamp(min=1)
    return float(difference.max())
