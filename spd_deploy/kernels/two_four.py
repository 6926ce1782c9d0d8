"""2:4 tensor cores through ``torch.sparse``, for the products in which they win on this GPU.

Whether they do depends on GPU and shape, and users report anything from a third of the dense speed
to a fifth more. So both ways are timed for each shape of product that comes up, in a network's
warm-up, and the faster is taken from then on. Both forms of the weight stay in memory, since a
shape that comes later may choose otherwise.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spd_deploy.kernels.weights import number_of
from spd_deploy.timing.cuda_clock import graph_seconds

if TYPE_CHECKING:
    from torch import Tensor

# What torch.sparse.to_sparse_semi_structured asks of fp16 and bf16 weights.
ROWS, COLUMNS = 32, 64
NUMBERS = ("fp16", "bf16")


def takes_two_four(shape: tuple[int, int], number: str) -> bool:
    """Whether PyTorch's 2:4 product takes a weight ``[N, K]`` of these numbers."""
    return number in NUMBERS and shape[0] % ROWS == 0 and shape[1] % COLUMNS == 0


def packed(weight_NK: "Tensor") -> "Tensor":
    """The weight as PyTorch's 2:4 tensor; it is on CUDA."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*SparseSemiStructuredTensor.*")
        return torch.sparse.to_sparse_semi_structured(weight_NK)


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """How long a product takes dense, and on 2:4 tensor cores; None where those failed."""

    dense_s: float
    sparse_s: float | None

    @property
    def wins(self) -> bool:
        """Whether 2:4 tensor cores are the faster."""
        return self.sparse_s is not None and self.sparse_s < self.dense_s


class Chooser:
    """Knows for which products 2:4 tensor cores are faster on the current GPU."""

    def __init__(self) -> None:
        self.known: dict[str, Times] = {}

    def wins(
        self, x_TK: "Tensor", dense_NK: "Tensor", sparse_NK: "Tensor", bias_N: "Tensor"
    ) -> bool:
        """Whether this product is faster on 2:4 tensor cores; measured where it is not known."""
        (N, K), T = dense_NK.shape, x_TK.shape[0]
        product = f"{number_of(x_TK.dtype)} {N}x{K} {T} tokens"
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
    ) -> Times:
        """Both ways; a library that cannot do the shape has no time."""
        import torch
        from torch.nn.functional import linear

        assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - a warm-up came first
        dense_s = graph_seconds(lambda: linear(x_TK, dense_NK, bias_N))
        sparse_s: float | None = None
        try:
            sparse_s = graph_seconds(lambda: linear(x_TK, sparse_NK, bias_N))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as err:
            # The times say that dense is taken; the reason is for who looks for it.
            warnings.warn(f"2:4 does not run {product}: {err}", stacklevel=2)
        return Times(dense_s=dense_s, sparse_s=sparse_s)
