"""Launches the Triton kernels on PyTorch tensors.

Only the result is allocated, so a launch can be captured in a CUDA graph. The tile of a product is
tuned at its first launch, which must therefore come before a capture. Offsets are 64-bit only for
tensors of 2^31 elements or more, since that costs registers. ``enable_fp_fusion`` is set
explicitly, because its default differs between Triton 3.9 and 3.10.
"""

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from spd_deploy.domain.errors import Unavailable
from spd_deploy.kernels.distances import middle_of
from spd_deploy.kernels.stationary import StationaryTile
from spd_deploy.kernels.tiles import MIN_TILE_SIDE, Tile, next_power_of_2
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor

# Triton's autotuner stores a call's arguments in itself, and models may run in several threads.
_TUNER = threading.Lock()
# The kernel's name in a profiler.
KERNEL = "block_linear"
FP_FUSION = {"enable_fp_fusion": True}
_WIDE = 2**31
# Tokens that one program normalises: 64 bytes of a row in fp16, or 16 bytes for few tokens.
_NORM_TOKENS, _FEW_NORM_TOKENS = 32, 8
_BUSY_TOKENS = 4096


def refuse_no_triton() -> None:
    """Refuse to run the kernels without Triton, which PyTorch's CUDA builds for Linux include.

    Raises:
        Unavailable: Triton does not import.
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
    tile: Tile | StationaryTile | None = None,
    *,
    activation: str = "none",
    residual_NT: "Tensor | None" = None,
) -> "Tensor":
    """Block-sparse product ``[K, T]`` to ``[N, T]``; without ``tile`` the fastest is tuned.

    A :class:`~spd_deploy.kernels.stationary.StationaryTile` runs the kernel that keeps its weights
    in shared memory, which the tuner does not measure.
    """
    if isinstance(tile, StationaryTile):
        return _stationary(x_KT, weight, tile, activation=activation, residual_NT=residual_NT)
    from spd_deploy.kernels.sources.linear import block_linear as kernel
    from spd_deploy.kernels.sources.tuned import tuned_block_linear

    G, R, J = weight.values_GRJ.shape
    T = x_KT.shape[1]
    out_NT = x_KT.new_empty((weight.outputs, T))
    added = out_NT if residual_NT is None else residual_NT

    def grid(meta: dict[str, int]) -> tuple[int]:
        """Number of programs: the row tiles of all groups, times the token tiles."""
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
            next_power_of_2(T),
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


def _stationary(
    x_KT: "Tensor",
    weight: BlockWeight,
    tile: StationaryTile,
    *,
    activation: str,
    residual_NT: "Tensor | None",
) -> "Tensor":
    """The same product by the kernel whose weights stay in shared memory."""
    from spd_deploy.kernels.sources.stationary import block_linear_stationary as kernel

    G, R, J = weight.values_GRJ.shape
    T = x_KT.shape[1]
    out_NT = x_KT.new_empty((weight.outputs, T))
    added = out_NT if residual_NT is None else residual_NT
    kernel[(G * -(-R // tile.rows), tile.splits)](
        weight.values_GRJ,
        weight.rows_GJ,
        x_KT,
        weight.bias_N,
        added,
        out_NT,
        R,
        T,
        x_KT.stride(0),
        added.stride(0),
        out_NT.stride(0),
        ACTIVATION=activation,
        RESIDUAL=residual_NT is not None,
        WIDE=_is_wide(x_KT, out_NT, added),
        J=J,
        num_warps=tile.warps,
        **tile.constants,
        **FP_FUSION,
    )
    return out_NT


def layer_norm(x_HT: "Tensor", weight_H: "Tensor", bias_H: "Tensor", epsilon: float) -> "Tensor":
    """Layer norm over the features of each token of ``[H, T]``."""
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
        BLOCK_H=next_power_of_2(H),
        BLOCK_T=tokens,
        num_warps=8 if tokens == _NORM_TOKENS else 4,
        **FP_FUSION,
    )
    return out_HT


def attention(
    q: "Tensor",
    k: "Tensor",
    v: "Tensor",
    bias_BS: "Tensor",
    *,
    heads: int,
    biases_AD: "Tensor | None" = None,
) -> "Tensor":
    """The context ``[A D, B SQ]`` of queries ``[A D, B SQ]``; keys and values have B S tokens."""
    from spd_deploy.kernels.sources.attention import attention as kernel

    B, S = bias_BS.shape
    D, asking = q.shape[0] // heads, q.shape[1] // B
    out = q.new_empty(q.shape)
    queries, keys = (min(64, max(MIN_TILE_SIDE, next_power_of_2(size))) for size in (asking, S))
    kernel[(B * heads, -(-asking // queries))](  # the grid's second size is limited to 65535
        q,
        k,
        v,
        bias_BS,
        bias_BS if biases_AD is None else biases_AD,
        out,
        heads,
        asking,
        S,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        out.stride(0),
        0 if biases_AD is None else biases_AD.stride(0),
        0 if biases_AD is None else middle_of(biases_AD),
        D**-0.5,
        D=D,
        BY_DISTANCE=biases_AD is not None,
        WIDE=_is_wide(q, k, v, out),
        BLOCK_D=max(MIN_TILE_SIDE, next_power_of_2(D)),
        BLOCK_Q=queries,
        BLOCK_K=keys,
        num_warps=4,
        num_stages=2,
        **FP_FUSION,
    )
    return out


def _is_wide(*tensors: Any) -> bool:
    """Whether a tensor has an element whose offset needs more than 32 bits."""
    return any(x.shape[0] * x.stride(0) >= _WIDE for x in tensors)
