"""2:4 tensor cores through ``torch.sparse``, for the products where they are faster than dense.

The speed depends on the GPU and the shape; users report from a third of the dense speed to a fifth
more. A network's warm-up therefore times both for each shape of product, and uses the faster from
then on. Both forms of the weight stay in memory, since another shape may choose the other one.

cuSPARSELt writes its outputs ``[N, T]``. Its transpose is fused into the product here: with outputs
of strides ``(1, T)`` each norm would copy them, and attention would run by its slowest kernel. Its
algorithm is searched for each number of tokens, as the first one that it has is seldom the fastest.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spd_deploy.kernels.weights import float_type_of
from spd_deploy.timing.cuda_clock import graph_seconds

if TYPE_CHECKING:
    from torch import Tensor

# torch.sparse.to_sparse_semi_structured needs multiples of these sizes for fp16 and bf16.
ROWS, COLUMNS = 32, 64
TWO_FOUR_DTYPES = ("fp16", "bf16")
# Tokens of a 2:4 product are padded to a multiple of this.
_TOKENS = 8


def supports_two_four(shape: tuple[int, int], dtype: str) -> bool:
    """Whether PyTorch's 2:4 product takes a weight of this shape ``[N, K]`` and dtype."""
    return dtype in TWO_FOUR_DTYPES and shape[0] % ROWS == 0 and shape[1] % COLUMNS == 0


def to_two_four(weight_NK: "Tensor") -> "Tensor":
    """A weight on CUDA as PyTorch's semi-structured sparse tensor, its transpose fused."""
    import torch

    kind: Any = torch.sparse.SparseSemiStructuredTensor
    before = kind._FUSE_TRANSPOSE
    kind._FUSE_TRANSPOSE = True  # read when a weight is packed; PyTorch 2.13 always fuses
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor.*")
            return torch.sparse.to_sparse_semi_structured(weight_NK)
    finally:
        kind._FUSE_TRANSPOSE = before


def two_four_linear(x_TK: "Tensor", sparse_NK: "Tensor", bias_N: "Tensor") -> "Tensor":
    """``x @ weight.T + bias`` as contiguous ``[T, N]``, whichever library computes it."""
    from torch.nn.functional import linear

    return linear(x_TK, sparse_NK, bias_N).contiguous()


def fastest_algorithm(x_TK: "Tensor", sparse_NK: Any, bias_N: "Tensor") -> int:
    """The number of cuSPARSELt's fastest algorithm for this product, which it measures.

    0 where the weight is packed for CUTLASS, which has one algorithm.
    """
    import torch
    from torch.nn.functional import pad

    if sparse_NK.packed is None or sparse_NK.meta is not None:
        return 0
    x_TK = pad(x_TK, (0, 0, 0, -len(x_TK) % _TOKENS))
    return int(
        torch._cslt_sparse_mm_search(sparse_NK.packed, x_TK.t(), bias=bias_N, transpose_result=True)
    )


def with_algorithm(sparse_NK: Any, algorithm: int) -> "Tensor":
    """The same packed weight, multiplied by another of cuSPARSELt's algorithms."""
    if algorithm == 0:
        return sparse_NK  # type: ignore[no-any-return]
    made: Tensor = type(sparse_NK)(
        sparse_NK.shape,
        packed=sparse_NK.packed,
        meta=None,
        packed_t=None,
        meta_t=None,
        compressed_swizzled_bitmask=None,
        fuse_transpose_cusparselt=True,
        alg_id_cusparselt=algorithm,
    )
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoFourTimes:
    """Seconds of a product, dense and on 2:4 tensor cores; None where the latter failed.

    ``algorithm`` is cuSPARSELt's fastest.
    """

    dense_s: float
    sparse_s: float | None
    algorithm: int = 0

    @property
    def wins(self) -> bool:
        """Whether 2:4 tensor cores are faster."""
        return self.sparse_s is not None and self.sparse_s < self.dense_s


class TwoFourSelector:
    """Measures and remembers which products are faster on 2:4 tensor cores of this GPU."""

    def __init__(self) -> None:
        self.known: dict[str, TwoFourTimes] = {}

    def times(
        self,
        x_TK: "Tensor",
        dense_NK: "Tensor",
        sparse_NK: "Tensor",
        bias_N: "Tensor",
        *,
        then: Callable[["Tensor"], object] = lambda y: y,
        named: str = "",
    ) -> TwoFourTimes:
        """The times of this product with what follows it; measured at its first call.

        ``then`` is what the network does with the outputs, and is timed with the product; ``named``
        says what that is, since products of one size may be followed by different things.
        """
        (N, K), T = dense_NK.shape, x_TK.shape[0]
        product = f"{float_type_of(x_TK.dtype)} {N}x{K} {T} tokens{named and f', {named}'}"
        if product not in self.known:
            self.known[product] = _measured(product, x_TK, dense_NK, sparse_NK, bias_N, then)
        return self.known[product]


def _measured(
    product: str,
    x_TK: "Tensor",
    dense_NK: "Tensor",
    sparse_NK: "Tensor",
    bias_N: "Tensor",
    then: Callable[["Tensor"], object],
) -> TwoFourTimes:
    """Time both; the sparse time is None where PyTorch refuses the shape."""
    import torch
    from torch.nn.functional import linear

    assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - the warm-up has measured it
    dense_s = graph_seconds(lambda: then(linear(x_TK, dense_NK, bias_N)))
    sparse_s, algorithm = None, 0
    try:
        algorithm = fastest_algorithm(x_TK, sparse_NK, bias_N)
        packed_NK = with_algorithm(sparse_NK, algorithm)
        sparse_s = graph_seconds(lambda: then(two_four_linear(x_TK, packed_NK, bias_N)))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as err:
        # The product runs dense then; the warning tells the reason.
        warnings.warn(f"2:4 does not run {product}: {err}", stacklevel=2)
    return TwoFourTimes(dense_s=dense_s, sparse_s=sparse_s, algorithm=algorithm)
