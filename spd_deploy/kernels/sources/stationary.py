"""The block-sparse product as a Triton kernel whose weights stay in shared memory.

The kernel of ``linear.py`` reads its weights from L2 again for every tile of tokens. L2 bandwidth
is its limit, so this one reads them once: a program loads the weights of its rows, and then walks
over tiles of tokens. Of BERT-base at 90 % in blocks of 128 rows a layer's products move 118 MB
instead of 140 (``traffic.py``), next to the least that must move.

J is a constant of the compiled kernel and all steps over it are unrolled, 16 inputs each, so a tile
has no loop, no tail and no mask but that of tokens. The pipeline runs over tiles of tokens: the
inputs of the next tile are on their way while one is multiplied. Programs of all rows walk over the
tokens in the same order, so that these are read from memory once and from L2 by every group.
"""

import triton
import triton.language as tl

from spd_deploy.kernels.sources.linear import activated

_STEP = tl.constexpr(16)


@triton.heuristics({"R_OK": lambda args: args["R"] % args["BLOCK_R"] == 0})
@triton.jit
def block_linear_stationary(
    values,  # [G, R, J]
    rows,  # [G, J] int32: of x, the row of each kept input
    x,  # [K, T]
    bias,  # [G R] fp32
    residual,  # [G R, T], or anything where there is none
    out,  # [G R, T]
    R,
    T,
    stride_x,
    stride_residual,
    stride_out,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WIDE: tl.constexpr,  # whether a tensor has 2^31 elements or more
    J: tl.constexpr,  # a multiple of 16
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
    SPLITS: tl.constexpr,  # programs that share the tokens of the same rows
    STAGES: tl.constexpr,  # tiles of tokens that are loaded or multiplied at the same time
    R_OK: tl.constexpr,  # whether BLOCK_R divides R
):
    """The grid is the row tiles of all groups times SPLITS."""
    tiles_of_group = tl.cdiv(R, BLOCK_R)
    g, part = tl.program_id(0) // tiles_of_group, tl.program_id(0) % tiles_of_group
    offs_R = part * BLOCK_R + tl.arange(0, BLOCK_R)
    row_ok = offs_R < R
    values_R1 = values + g.to(tl.int64) * R * J + offs_R[:, None] * J
    weights = ()
    inputs = ()
    for step in tl.static_range(J // _STEP):
        offs_J = step * _STEP + tl.arange(0, _STEP)
        if R_OK:
            w_RJ = tl.load(values_R1 + offs_J[None, :])
        else:
            w_RJ = tl.load(values_R1 + offs_J[None, :], mask=row_ok[:, None], other=0.0)
        row_J = tl.load(rows + g * J + offs_J)
        if WIDE:
            row_J = row_J.to(tl.int64)
        # Triton unpacks no tuples.
        weights = weights + (w_RJ,)  # type: ignore[assignment] # noqa: RUF005
        inputs = inputs + (row_J[:, None] * stride_x,)  # type: ignore[assignment] # noqa: RUF005
    n_R = g * R + offs_R
    bias_R = tl.load(bias + n_R, mask=row_ok, other=0.0)
    if WIDE:
        n_R = n_R.to(tl.int64)
    for tile in tl.range(tl.program_id(1), tl.cdiv(T, BLOCK_T), SPLITS, num_stages=STAGES):
        offs_T = tile * BLOCK_T + tl.arange(0, BLOCK_T)
        token_ok = offs_T < T
        acc = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
        for step in tl.static_range(J // _STEP):
            x_JT = tl.load(x + inputs[step] + offs_T[None, :], mask=token_ok[None, :], other=0.0)
            acc = tl.dot(weights[step], x_JT, acc, input_precision="ieee")
        acc = activated(acc + bias_R[:, None], ACTIVATION)
        ok = row_ok[:, None] & token_ok[None, :]
        if RESIDUAL:
            added = tl.load(residual + n_R[:, None] * stride_residual + offs_T[None, :], mask=ok)
            acc += added.to(tl.float32)
        place = out + n_R[:, None] * stride_out + offs_T[None, :]
        tl.store(place, acc.to(out.dtype.element_ty), mask=ok)
