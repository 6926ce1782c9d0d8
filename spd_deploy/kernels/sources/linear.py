"""The block-sparse product as a Triton kernel: each group of R outputs reads only what it kept.

    out[N, T] = act(values[G, R, J] @ x[rows[G, J], T] + bias[N]) + residual[N, T]

Activations lie feature-major ``[features, T]``: a kept input is one contiguous row of tokens, so a
tile of J inputs by T tokens is loaded by index in whole cache lines, and what is then multiplied is
dense, on tensor cores, whatever the width of a block. Blocks wider than one input are told apart by
the index alone, which names every kept input; it takes 4 bytes where the values take 2 R.

A program makes one tile of outputs: some rows of one group, a stretch of tokens. It walks all kept
inputs itself, in fp32, so that nothing is added by several programs and the result is the same bits
each time. The main steps take BLOCK_J inputs and the tail steps of 16, since 10 % of 768 inputs are
77: a whole step more would multiply zeros for a third of the time. J is padded to a multiple of 16
when the weight is prepared (``weights.py``), so neither values nor rows are ever masked.

Programs that share a stretch of tokens follow one another, all groups of it before the next: the
stretch, K x BLOCK_T, is a few hundred KB and stays in the L2 cache while every group reads its
share. That cache is the limit: a tile does 2 R BLOCK_T J operations on 2 (R + BLOCK_T) J bytes, so
64 rows by 128 tokens do 43 operations a byte. A GPU that reads 5 TB/s from L2 reaches about 210
TFLOP/s so, 280 with 256 tokens, and with blocks of 128 rows half as much again: taller blocks are
faster.

Which side of the product is M, the tensor core's side of 64 rows on Hopper, the tile says: outputs
where a group has 64 rows or more, tokens where it has fewer. Groups of fewer than 16 rows are
padded to 16, the least a tensor core takes; the rows beyond are computed, not stored.
"""

import triton
import triton.language as tl

_INVERSE_ROOT_2 = tl.constexpr(0.7071067811865476)
_ROOT_2_OVER_PI_TWICE = tl.constexpr(1.5957691216057308)
_CUBIC = tl.constexpr(0.044715)
_TAIL = tl.constexpr(16)


@triton.jit
def _activated(y, ACTIVATION: tl.constexpr):
    """The activation in fp32, by its name."""
    if ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * _INVERSE_ROOT_2))
    elif ACTIVATION == "gelu_tanh":
        # 0.5 (1 + tanh(u)) is 1 / (1 + exp(-2 u)).
        u = (y + y * y * y * _CUBIC) * _ROOT_2_OVER_PI_TWICE
        y = y / (1.0 + tl.exp(0.0 - u))
    elif ACTIVATION == "relu":
        y = tl.maximum(y, 0.0)
    else:
        tl.static_assert(ACTIVATION == "none")
    return y


@triton.jit
def _walk(acc, values, rows, x, start, end, row_ok, token_ok, stride_x, R_OK: tl.constexpr,
          WIDE: tl.constexpr, TOKENS_FIRST: tl.constexpr, BLOCK_J: tl.constexpr):  # fmt: skip
    """Add the products of the kept inputs from ``start`` to ``end``, BLOCK_J at a time.

    Which rows a step reads is loaded a step ahead. Loaded in the step itself, they would be one
    more stage of the pipeline, and half of its depth would go to waiting for them.
    """
    offs_J = start + tl.arange(0, BLOCK_J)
    row_J = tl.load(rows + offs_J, mask=offs_J < end, other=0)
    for _ in tl.range(start, end, BLOCK_J):
        if WIDE:
            x_JT = tl.load(
                x + row_J.to(tl.int64)[:, None] * stride_x, mask=token_ok[None, :], other=0.0
            )
        else:
            x_JT = tl.load(x + row_J[:, None] * stride_x, mask=token_ok[None, :], other=0.0)
        if R_OK:
            w_RJ = tl.load(values + offs_J[None, :])
        else:
            w_RJ = tl.load(values + offs_J[None, :], mask=row_ok[:, None], other=0.0)
        offs_J += BLOCK_J
        row_J = tl.load(rows + offs_J, mask=offs_J < end, other=0)
        if TOKENS_FIRST:
            acc = tl.dot(tl.trans(x_JT), tl.trans(w_RJ), acc, input_precision="ieee")
        else:
            acc = tl.dot(w_RJ, x_JT, acc, input_precision="ieee")
    return acc


@triton.heuristics({"R_OK": lambda args: args["R"] % args["BLOCK_R"] == 0})
@triton.jit(do_not_specialize=["tokens_class"])
def block_linear(
    values,  # [G, R, J]
    rows,  # [G, J] int32: of x, the row of each kept input
    x,  # [K, T]
    bias,  # [G R] fp32
    residual,  # [G R, T], or anything where there is none
    out,  # [G R, T]
    G,
    R,
    J,  # a multiple of 16
    T,
    tokens_class,  # not read: with G, R and J it tells the tuner which products share a tile
    stride_x,
    stride_residual,
    stride_out,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WIDE: tl.constexpr,  # whether a tensor has 2^31 elements or more
    TOKENS_FIRST: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_J: tl.constexpr,
    R_OK: tl.constexpr,  # whether BLOCK_R divides R
):
    """One tile of outputs; the grid has the tiles of all groups times the stretches of tokens."""
    program = tl.program_id(0)
    tiles_of_group = tl.cdiv(R, BLOCK_R)
    row_tiles = G * tiles_of_group  # programs that share a stretch of tokens
    tile, stretch = program % row_tiles, program // row_tiles
    g, part = tile // tiles_of_group, tile % tiles_of_group
    offs_R = part * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_T = stretch * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok, token_ok = offs_R < R, offs_T < T
    values_R1 = values + g.to(tl.int64) * R * J + offs_R[:, None] * J
    rows_of_g = rows + g * J
    x_1T = x + offs_T[None, :]
    if TOKENS_FIRST:
        acc = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    else:
        acc = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    whole = J // BLOCK_J * BLOCK_J
    acc = _walk(acc, values_R1, rows_of_g, x_1T, 0, whole, row_ok, token_ok, stride_x,
                R_OK, WIDE, TOKENS_FIRST, BLOCK_J)  # fmt: skip
    acc = _walk(acc, values_R1, rows_of_g, x_1T, whole, J, row_ok, token_ok, stride_x,
                R_OK, WIDE, TOKENS_FIRST, _TAIL)  # fmt: skip
    if TOKENS_FIRST:
        acc = tl.trans(acc)
    n_R = g * R + offs_R
    acc += tl.load(bias + n_R, mask=row_ok, other=0.0)[:, None]
    acc = _activated(acc, ACTIVATION)
    if WIDE:
        n_R = n_R.to(tl.int64)
    ok = row_ok[:, None] & token_ok[None, :]
    if RESIDUAL:
        added = tl.load(residual + n_R[:, None] * stride_residual + offs_T[None, :], mask=ok)
        acc += added.to(tl.float32)
    place = out + n_R[:, None] * stride_out + offs_T[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), mask=ok)
