"""Launches the Triton kernels on PyTorch tensors.

Nothing here allocates but the result, so all of it may be captured in a CUDA graph; a product whose
tile is not known yet is tuned first, which must have happened before. Where addresses reach 2^31
elements they are computed in 64 bits, which costs registers and is left out elsewhere. Fusing a
product with the sum after it is asked for by name, since Triton's default for that changes from 3.9
to 3.10.
"""

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import Unavailable
from spd_deploy.kernels.tiles import LEAST, Tile, power_above
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor

# Triton's tuner keeps a call's arguments in itself, and models may run in threads of their own.
_TUNER = threading.Lock()
# The name under which a profiler shows the block-sparse product.
KERNEL = "block_linear"
FP_FUSION = {"enable_fp_fusion": True}
_WIDE = 2**31
# Tokens that one program normalises: 64 bytes a row, and 16 where there are few programs.
_NORM_TOKENS, _FEW_NORM_TOKENS = 32, 8
_BUSY_TOKENS = 4096


def refuse_no_triton() -> None:
    """The kernels need Triton, which CUDA builds of PyTorch for Linux bring along.

    Raises:
        Unavailable: it is not installed, or broken.
    """
    try:
        import triton  # noqa: F401 - whether it imports is the question
    except Exception as err:
        raise Unavailable(
            "the block-sparse kernel needs Triton, which does not import",
            got=err,
            fix="pip install 'spd-deploy[triton]', or use --device cpu",
        ) from err


def block_linear(
    x_KT: "Tensor",
    weight: BlockWeight,
    tile: Tile | None = None,
    *,
    activation: str = "none",
    residual_NT: "Tensor | None" = None,
) -> "Tensor":
    """``[K, T]`` to ``[N, T]``; tokens are contiguous in all three. Without a tile it is tuned."""
    from spd_deploy.kernels.sources.linear import block_linear as kernel
    from spd_deploy.kernels.sources.tuned import tuned_block_linear

    G, R, J = weight.values_GRJ.shape
    T = x_KT.shape[1]
    out_NT = x_KT.new_empty((weight.outputs, T))
    added = out_NT if residual_NT is None else residual_NT

    def grid(meta: dict[str, int]) -> tuple[int]:
        """Tiles of all groups times stretches of tokens."""
        return (G * -(-R // meta["BLOCK_R"]) * -(-T // meta["BLOCK_T"]),)

    options = {} if tile is None else {**tile.constants, **tile.options}
    with _TUNER if tile is None else contextlib.nullcontext():
        (tuned_block_linear if tile is None else kernel)[grid](
            weight.values_GRJ,
            weight.rows_GJ,
            x_KT,
            weight.bias_N,
            added,
            out_NT,
            G,
            R,
            J,
            T,
            power_above(T),
            x_KT.stride(0),
            added.stride(0),
            out_NT.stride(0),
            ACTIVATION=activation,
            RESIDUAL=residual_NT is not None,
            WIDE=_is_wide(x_KT, out_NT, added),
            **options,
            **FP_FUSION,
        )
    return out_NT


def layer_norm(x_HT: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
    """Over the features of each token."""
    from spd_deploy.kernels.sources.norm import layer_norm as kernel

    H, T = x_HT.shape
    out_HT = x_HT.new_empty((H, T))
    tokens = _NORM_TOKENS if T >= _BUSY_TOKENS else _FEW_NORM_TOKENS
    kernel[(-(-T // tokens),)](
        x_HT,
        weight_H,
        bias_H,
        out_HT,
        H,
        T,
        x_HT.stride(0),
        out_HT.stride(0),
        epsilon,
        WIDE=_is_wide(x_HT, out_HT),
        BLOCK_H=power_above(H),
        BLOCK_T=tokens,
        num_warps=8 if tokens == _NORM_TOKENS else 4,
        **FP_FUSION,
    )
    return out_HT


def attention(q: "Tensor", k: "Tensor", v: "Tensor", bias_BS: "Tensor", *, heads: int) -> "Tensor":
    """The context ``[A D, B SQ]`` of queries ``[A D, B SQ]``; keys and values have B S tokens."""
    from spd_deploy.kernels.sources.attention import attention as kernel

    B, S = bias_BS.shape
    D, asking = q.shape[0] // heads, q.shape[1] // B
    out = q.new_empty(q.shape)
    queries, keys = (min(64, max(LEAST, power_above(size))) for size in (asking, S))
    kernel[(B * heads, -(-asking // queries))](  # the second may not pass 65535, the first may
        q,
        k,
        v,
        bias_BS,
        out,
        heads,
        asking,
        S,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        out.stride(0),
        D**-0.5,
        D=D,
        WIDE=_is_wide(q, k, v, out),
        BLOCK_D=max(LEAST, power_above(D)),
        BLOCK_Q=queries,
        BLOCK_K=keys,
        num_warps=4,
        num_stages=2,
        **FP_FUSION,
    )
    return out


def _is_wide(*tensors: Any) -> bool:
    """Whether an element of one of them is out of 32 bits' reach."""
    return any(x.shape[0] * x.stride(0) >= _WIDE for x in tensors)
