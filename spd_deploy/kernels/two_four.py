"""2:4 tensor cores through ``torch.sparse``, for the products where they are faster than dense.

The speed depends on the GPU and the shape; users report from a third of the dense speed to a fifth
more. A network's warm-up therefore times both for each shape of product, and uses the faster from
then on. Both forms of the weight stay in memory, since another shape may choose the other one.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.kernels.weights import float_type_of
from spd_deploy.timing.cuda_clock import graph_seconds

if TYPE_CHECKING:
    from torch import Tensor

# torch.sparse.to_sparse_semi_structured needs multiples of these sizes for fp16 and bf16.
ROWS, COLUMNS = 32, 64
TWO_FOUR_DTYPES = ("fp16", "bf16")


def supports_two_four(shape: tuple[int, int], dtype: str) -> bool:
    """Whether PyTorch's 2:4 product takes a weight of this shape ``[N, K]`` and dtype."""
    return dtype in TWO_FOUR_DTYPES and shape[0] % ROWS == 0 and shape[1] % COLUMNS == 0


def to_two_four(weight_NK: "Tensor") -> "Tensor":
    """A weight on CUDA as PyTorch's semi-structured sparse tensor."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor.*")
        return torch.sparse.to_sparse_semi_structured(weight_NK)


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoFourTimes:
    """Seconds of a product, dense and on 2:4 tensor cores; None where the latter failed."""

    dense_s: float
    sparse_s: float | None

    @property
    def wins(self) -> bool:
        """Whether 2:4 tensor cores are faster."""
        return self.sparse_s is not None and self.sparse_s < self.dense_s


class TwoFourSelector:
    """Measures and remembers which products are faster on 2:4 tensor cores of this GPU."""

    def __init__(self) -> None:
        self.known: dict[str, TwoFourTimes] = {}

    def wins(
        self, x_TK: "Tensor", dense_NK: "Tensor", sparse_NK: "Tensor", bias_N: "Tensor"
    ) -> bool:
        """Whether this product is faster on 2:4 tensor cores; measured at its first call."""
        (N, K), T = dense_NK.shape, x_TK.shape[0]
        product = f"{float_type_of(x_TK.dtype)} {N}x{K} {T} tokens"
        if product not in self.known:
            self.known[product] = self._measured(product, x_TK, dense_NK, sparse_NK, bias_N)
        return self.known[product].wins

    def _measured(
        self,
        product: str,
        x_TK: "Tensor",
        dense_NK: "Tensor",
        sparse_NK: "Tensor",
        bias_N: "Tensor",
    ) -> TwoFourTimes:
        """Time both; the sparse time is None where PyTorch refuses the shape."""
        import torch
        from torch.nn.functional import linear

        assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - the warm-up has measured it
        dense_s = graph_seconds(lambda: linear(x_TK, dense_NK, bias_N))
        sparse_s: float | None = None
        try:
            sparse_s = graph_seconds(lambda: linear(x_TK, sparse_NK, bias_N))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as err:
            # The product runs dense then; the warning tells the reason.
            warnings.warn(f"2:4 does not run {product}: {err}", stacklevel=2)
        return TwoFourTimes(dense_s=dense_s, sparse_s=sparse_s)
