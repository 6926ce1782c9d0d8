"""Layer norm over feature-major activations as a Triton kernel.

A program normalises a few tokens with all their features. Mean and variance are computed in fp32 by
two passes over registers, so the activations are read once and written once.
"""

import triton
import triton.language as tl


@triton.jit
def layer_norm(
    x,  # [H, T]
    weight,  # [H] fp32
    bias,  # [H] fp32
    out,  # [H, T]
    H,
    T,
    stride_x,
    stride_out,
    epsilon,
    WIDE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """BLOCK_H must be at least H; the grid is the number of token tiles."""
    offs_H = tl.arange(0, BLOCK_H)
    offs_T = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    ok_H = offs_H < H
    ok = ok_H[:, None] & (offs_T < T)[None, :]
    row_H = offs_H
    if WIDE:
        row_H = row_H.to(tl.int64)
    x_HT = tl.load(x + row_H[:, None] * stride_x + offs_T[None, :], mask=ok, other=0.0)
    x_HT = x_HT.to(tl.float32)
    mean_T = tl.sum(x_HT, 0) / H
    centred_HT = tl.where(ok_H[:, None], x_HT - mean_T[None, :], 0.0)
    variance_T = tl.sum(centred_HT * centred_HT, 0) / H
    unit_HT = centred_HT * tl.rsqrt(variance_T + epsilon)[None, :]
    weight_H = tl.load(weight + offs_H, mask=ok_H, other=0.0)
    bias_H = tl.load(bias + offs_H, mask=ok_H, other=0.0)
    y_HT = unit_HT * weight_H[:, None] + bias_H[:, None]
    tl.store(
        out + row_H[:, None] * stride_out + offs_T[None, :], y_HT.to(out.dtype.element_ty), mask=ok
    )
