"""Attention over feature-major activations as a Triton kernel, with no transpose in memory.

Queries, keys and values are ``[A D, tokens]``: A heads of D features, with the tokens of a row side
by side. PyTorch's fused attention needs a head's features contiguous and would copy all three
tensors first. This kernel loads a tile of D features by some tokens as it is, transposes it in
registers for the tensor cores, and stores the context feature-major.

A program computes the context of some queries of one head of one row. It uses online softmax over
the keys in fp32 (Milakov and Gimelshein 2018; Dao et al. 2022) in one deterministic pass. A bias
for each key masks padding, as in the exported graphs; a row of padding alone gives a mean, not NaN.
Where ``BY_DISTANCE``, a bias for each head and distance is added; it is read from a row of numbers
side by side, and never spread over the pairs in memory.
"""

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention(
    q,  # [A D, B SQ]
    k,  # [A D, B SK]
    v,  # [A D, B SK]
    bias,  # [B SK] fp32: 0, or very low where a key is masked
    biases,  # [A, 2 P - 1] fp32: by the distance of a key from its query, 1 - P to P - 1
    out,  # [A D, B SQ]
    heads,
    SQ,
    SK,
    stride_q,
    stride_k,
    stride_v,
    stride_out,
    stride_biases,
    middle,
    scale,
    D: tl.constexpr,
    BY_DISTANCE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The grid is (batch x heads, query tiles)."""
    b, a = tl.program_id(0) // heads, tl.program_id(0) % heads
    offs_Q = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    offs_D = tl.arange(0, BLOCK_D)
    feature_D = a * D + offs_D
    if WIDE:
        feature_D = feature_D.to(tl.int64)
    ok_D, ok_Q = offs_D < D, offs_Q < SQ
    token_Q = b * SQ + offs_Q
    q_DQ = tl.load(
        q + feature_D[:, None] * stride_q + token_Q[None, :],
        mask=ok_D[:, None] & ok_Q[None, :],
        other=0.0,
    )
    q_QD = tl.trans(q_DQ)
    most_Q = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    sum_Q = tl.zeros((BLOCK_Q,), tl.float32)
    acc_QD = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for start in tl.range(0, SK, BLOCK_K):
        offs_K = start + tl.arange(0, BLOCK_K)
        ok_K = offs_K < SK
        token_K = b * SK + offs_K
        ok_DK = ok_D[:, None] & ok_K[None, :]
        k_DK = tl.load(k + feature_D[:, None] * stride_k + token_K[None, :], mask=ok_DK, other=0.0)
        hidden_K = tl.load(bias + token_K, mask=ok_K, other=float("-inf"))
        score_QK = tl.dot(q_QD, k_DK, input_precision="ieee") * scale + hidden_K[None, :]
        if BY_DISTANCE:
            place_QK = a * stride_biases + middle + offs_K[None, :] - offs_Q[:, None]
            score_QK += tl.load(biases + place_QK, mask=ok_Q[:, None] & ok_K[None, :], other=0.0)
        now_Q = tl.maximum(most_Q, tl.max(score_QK, 1))
        share_QK = tl.exp2((score_QK - now_Q[:, None]) * _LOG2_E)
        faded_Q = tl.exp2((most_Q - now_Q) * _LOG2_E)
        sum_Q = sum_Q * faded_Q + tl.sum(share_QK, 1)
        v_DK = tl.load(v + feature_D[:, None] * stride_v + token_K[None, :], mask=ok_DK, other=0.0)
        acc_QD = acc_QD * faded_Q[:, None]
        acc_QD = tl.dot(share_QK.to(v_DK.dtype), tl.trans(v_DK), acc_QD, input_precision="ieee")
        most_Q = now_Q
    context_DQ = tl.trans(acc_QD / sum_Q[:, None])
    tl.store(
        out + feature_D[:, None] * stride_out + token_Q[None, :],
        context_DQ.to(out.dtype.element_ty),
        mask=ok_D[:, None] & ok_Q[None, :],
    )
