"""The block-sparse product as a Triton kernel: each group of R outputs reads only what it kept.

    out[N, T] = act(values[G, R, J] @ x[rows[G, J], T] + bias[N]) + residual[N, T]

Activations are feature-major ``[features, T]``, so a kept input is one contiguous row of tokens. A
tile of J inputs by T tokens is gathered by index in whole cache lines. The product of the tile is
dense and runs on tensor cores, for any width of a block. The index names every kept input, whatever
the width; it takes 4 bytes for an input, and the values take 2 R.

A program computes one tile of outputs: some rows of one group and some tokens. It accumulates all
kept inputs itself in fp32, so the result is deterministic. The main loop takes BLOCK_J inputs a
step, and the tail 16 a step. Density 10 % of 768 inputs is 77, and one more whole step would spend
a third of the time on zeros. The tail drains the pipeline, which is why tiles with steps of 16 are
among those measured; they have none. J is padded to a multiple of 16 when the weight is prepared
(``weights.py``), so values and rows need no mask.

Programs of the same token tile run one after another, over all groups, before the next token tile.
Their activations, K x BLOCK_T, are a few hundred KB and stay in the L2 cache while every group
reads its inputs. The L2 bandwidth is the limit. A tile does 2 R BLOCK_T J operations on
2 (R + BLOCK_T) J bytes: 64 rows by 128 tokens do 43 operations a byte. A GPU that reads 5 TB/s from
L2 then reaches about 210 TFLOP/s, 280 with 256 tokens, and half as much again with blocks of 128
rows. Taller blocks are therefore faster.

The tile decides which side is M, of which Hopper's tensor cores take 64: outputs where a group has
64 rows or more, tokens where it has fewer. Groups of fewer than 16 rows are padded to 16, the
smallest tensor core tile; rows beyond the group are computed but not stored.
"""

import triton
import triton.language as tl

_INVERSE_ROOT_2 = tl.constexpr(0.7071067811865476)
_ROOT_2_OVER_PI_TWICE = tl.constexpr(1.5957691216057308)
_MINUS_LOG2_E = tl.constexpr(-1.4426950408889634)
_CUBIC = tl.constexpr(0.044715)
_TAIL = tl.constexpr(16)


@triton.jit
def _gelu(y):
    """``y`` in fp32 after GELU, by the error function of Abramowitz and Stegun, 7.1.26.

    Its error is below 1.5e-7. The library's takes 32 instructions, by estimate 14 us of BERT-base's
    first feed-forward product at 32x128 on an H200, as much as the product itself. The reciprocal
    is the square of an inverse root: with a division the compiler spills registers on sm_90.
    """
    size = tl.abs(y)
    z = size * _INVERSE_ROOT_2
    r = tl.rsqrt(1.0 + 0.3275911 * z)
    t = r * r
    p = 1.061405429 * t - 1.453152027
    p = (p * t + 1.421413741) * t - 0.284496736
    p = (p * t + 0.254829592) * t
    erf = 1.0 - p * tl.exp2(z * z * _MINUS_LOG2_E)
    return 0.5 * (y + size * erf)


@triton.jit
def activated(y, ACTIVATION: tl.constexpr):
    """``y`` in fp32 after the activation of this name."""
    if ACTIVATION == "gelu":
        y = _gelu(y)
    elif ACTIVATION == "gelu_tanh":
        # 0.5 (1 + tanh(u)) is 1 / (1 + exp(-2 u)).
        u = (y + y * y * y * _CUBIC) * _ROOT_2_OVER_PI_TWICE
        y = y / (1.0 + tl.exp(0.0 - u))
    elif ACTIVATION == "silu":
        y = y / (1.0 + tl.exp(0.0 - y))
    elif ACTIVATION == "relu":
        y = tl.maximum(y, 0.0)
    else:
        tl.static_assert(ACTIVATION == "none")
    return y


@triton.jit
def _accumulate(acc, values, rows, x, start, end, row_ok, token_ok, stride_x, R_OK: tl.constexpr,
          WIDE: tl.constexpr, SWAP_OPERANDS: tl.constexpr, BLOCK_J: tl.constexpr):  # fmt: skip
    """Accumulate the products of the kept inputs from ``start`` to ``end``, BLOCK_J a step.

    The row indices of a step are loaded one step ahead. Loaded in the same step, they would take a
    stage of the pipeline, and half of its depth would wait for them.
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
        if SWAP_OPERANDS:
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
    tokens_class,  # not read; a key of the autotuner, with G, R and J
    stride_x,
    stride_residual,
    stride_out,
    ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WIDE: tl.constexpr,  # whether a tensor has 2^31 elements or more
    SWAP_OPERANDS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_J: tl.constexpr,
    R_OK: tl.constexpr,  # whether BLOCK_R divides R
):
    """Compute one tile of outputs; the grid is the row tiles of all groups times token tiles."""
    program = tl.program_id(0)
    tiles_of_group = tl.cdiv(R, BLOCK_R)
    row_tiles = G * tiles_of_group  # programs of one token tile
    tile, token_tile = program % row_tiles, program // row_tiles
    g, part = tile // tiles_of_group, tile % tiles_of_group
    offs_R = part * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_T = token_tile * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok, token_ok = offs_R < R, offs_T < T
    values_R1 = values + g.to(tl.int64) * R * J + offs_R[:, None] * J
    rows_of_g = rows + g * J
    x_1T = x + offs_T[None, :]
    if SWAP_OPERANDS:
        acc = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    else:
        acc = tl.zeros((BLOCK_R, BLOCK_T), tl.float32)
    whole = J // BLOCK_J * BLOCK_J
    acc = _accumulate(acc, values_R1, rows_of_g, x_1T, 0, whole, row_ok, token_ok, stride_x,
                R_OK, WIDE, SWAP_OPERANDS, BLOCK_J)  # fmt: skip
    if BLOCK_J > _TAIL:
        acc = _accumulate(acc, values_R1, rows_of_g, x_1T, whole, J, row_ok, token_ok, stride_x,
                    R_OK, WIDE, SWAP_OPERANDS, _TAIL)  # fmt: skip
    if SWAP_OPERANDS:
        acc = tl.trans(acc)
    n_R = g * R + offs_R
    acc += tl.load(bias + n_R, mask=row_ok, other=0.0)[:, None]
    acc = activated(acc, ACTIVATION)
    if WIDE:
        n_R = n_R.to(tl.int64)
    ok = row_ok[:, None] & token_ok[None, :]
    if RESIDUAL:
        added = tl.load(residual + n_R[:, None] * stride_residual + offs_T[None, :], mask=ok)
        acc += added.to(tl.float32)
    place = out + n_R[:, None] * stride_out + offs_T[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), mask=ok)
