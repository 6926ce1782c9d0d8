"""2:4 tensor cores through ``torch.sparse``, for the products in which they win on this GPU.

Whether they do depends on GPU and shape, and users report anything from a third of the dense speed
to a fifth more. So both ways are timed for each shape of product that comes up, in a network's
warm-up, and the faster is taken; the times are remembered. Both forms of the weight stay in memory,
since a shape that comes later may choose otherwise.
"""

import warnings
from typing import TYPE_CHECKING

from spd_deploy.domain.versions import version_of
from spd_deploy.kernels.remembered import Memory, Place, TwoFour
from spd_deploy.kernels.timing import graph_seconds
from spd_deploy.kernels.weights import number_of

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


class Chooser:
    """Knows for which products 2:4 tensor cores are faster on one GPU."""

    def __init__(self, memory: Memory, *, gpu: str) -> None:
        self.memory = memory
        self.place = Place(gpu=gpu, version=f"torch {version_of('torch')}")

    def wins(
        self, x_TK: "Tensor", dense_NK: "Tensor", sparse_NK: "Tensor", bias_N: "Tensor"
    ) -> bool:
        """Whether this product is faster on 2:4 tensor cores; measured where it is not known."""
        (N, K), T = dense_NK.shape, x_TK.shape[0]
        product = f"{number_of(x_TK.dtype)} {N}x{K} {T} tokens"
        known = self.memory.known.two_four_of(self.place, product)
        if known is None:
            known = self._measured(product, x_TK, dense_NK, sparse_NK, bias_N)
            self.memory.keep(known)
        return known.wins

    def _measured(
        self,
        product: str,
        x_TK: "Tensor",
        dense_NK: "Tensor",
        sparse_NK: "Tensor",
        bias_N: "Tensor",
    ) -> TwoFour:
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
        return TwoFour(place=self.place, product=product, dense_s=dense_s, sparse_s=sparse_s)
