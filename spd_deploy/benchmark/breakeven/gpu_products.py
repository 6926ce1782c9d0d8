"""Products of one matrix on a GPU in PyTorch, by each of the ``product_kernels``.

A kernel is a case in :func:`product_by` and a function below it. Letters as in ``domain.patterns``;
T counts tokens, R the rows of a block's group, J the inputs that a group kept.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from spd_deploy.benchmark.breakeven.product_kernels import ProductKernel
from spd_deploy.domain.errors import SpdError, Unavailable, first_line
from spd_deploy.domain.patterns import Block, Pattern

if TYPE_CHECKING:
    from torch import Tensor

Product = Callable[[], "Tensor"]
# Outputs and inputs that fill a tile of tensor cores.
_STEP = 64


def product_by(
    kernel: ProductKernel, weight_NK: "Tensor", x_TK: "Tensor", pattern: Pattern | None
) -> Product:
    """A product of a pruned weight with an input, ready to run again and again.

    Whatever is laid out or packed is so beforehand. Its result is ``[T, N]``, or ``[N, T]`` where
    the kernel is feature-major, and of the kept rows alone where it is compact.

    Raises:
        Unavailable: this kernel does not run such a product here.
    """
    try:
        match kernel:
            case "dense":
                return dense(weight_NK, x_TK)
            case "gathered":
                assert isinstance(pattern, Block)  # noqa: S101 - see kernels_of
                return gathered(weight_NK, x_TK, pattern)
            case "triton":
                assert isinstance(pattern, Block)  # noqa: S101 - see kernels_of
                return by_kernel(weight_NK, x_TK, pattern)
            case "sparse tensor cores":
                return two_four(weight_NK, x_TK)
            case "compact":
                return compact(weight_NK, x_TK)
            case never:
                assert_never(never)
    except (SpdError, AssertionError):
        raise
    except RuntimeError as err:  # PyTorch's word for what a library or a GPU does not support
        raise refused(err) from err


def refused(err: Exception) -> Unavailable:
    """A library's refusal in a line."""
    return Unavailable(
        "this product does not run here", got=first_line(err), fix="choose another pattern"
    )


def dense(weight_NK: "Tensor", x_TK: "Tensor") -> Product:
    """A dense product, in which zeros are multiplied too."""
    from torch.nn.functional import linear

    bias_N = weight_NK.new_ones(len(weight_NK))
    return lambda: linear(x_TK, weight_NK, bias_N)


def gathered(weight_NK: "Tensor", x_TK: "Tensor", pattern: Block) -> Product:
    """Each group's inputs picked as whole rows of ``[K, T]``, then a batched product with bias."""
    import torch

    values_GRJ, index_GJ = packed_blocks(weight_NK, pattern)
    G, R, J = values_GRJ.shape
    bias_GR1, x_KT = weight_NK.new_ones(G, R, 1), x_TK.t().contiguous()
    T, index = x_KT.shape[1], index_GJ.reshape(-1)

    def run() -> "Tensor":
        picked_GJT = x_KT.index_select(0, index).view(G, J, T)
        return torch.baddbmm(bias_GR1, values_GRJ, picked_GJT).view(G * R, T)

    return run


def by_kernel(weight_NK: "Tensor", x_TK: "Tensor", pattern: Block) -> Product:
    """This project's block-sparse kernel on a feature-major input, with the tile that suits it.

    Raises:
        Unavailable: there is no GPU to launch it on, or no Triton.
    """
    if not weight_NK.is_cuda:
        raise Unavailable(
            "the block-sparse kernel runs on a GPU", got=f"device {weight_NK.device}",
            fix="use the gathered kernel",
        )  # fmt: skip
    from spd_deploy.kernels.launch import block_linear, refuse_no_triton
    from spd_deploy.kernels.weights import BlockWeight

    refuse_no_triton()
    values_GRJ, index_GJ = packed_blocks(weight_NK, pattern)
    bias_N = weight_NK.new_ones(len(weight_NK))
    weight = BlockWeight.of(values_GRJ, index_GJ, bias_N, columns=1, inputs=weight_NK.shape[1])
    x_KT = x_TK.t().contiguous()
    return lambda: block_linear(x_KT, weight)


def two_four(weight_NK: "Tensor", x_TK: "Tensor") -> Product:
    """A 2:4 product on sparse tensor cores.

    Raises:
        Unavailable: the library does not take a weight of this shape.
    """
    from spd_deploy.kernels.two_four import (
        COLUMNS,
        ROWS,
        fastest_algorithm,
        supports_two_four,
        to_two_four,
        two_four_linear,
        with_algorithm,
    )
    from spd_deploy.kernels.weights import float_type_of

    N, K = weight_NK.shape
    if not supports_two_four((N, K), float_type_of(weight_NK.dtype)):
        raise Unavailable(
            f"torch.sparse takes multiples of {ROWS} outputs and {COLUMNS} inputs",
            got=f"{N}x{K}",
            fix="choose another pattern for this size",
        )
    packed_NK, bias_N = to_two_four(weight_NK), weight_NK.new_ones(len(weight_NK))
    sparse_NK = with_algorithm(packed_NK, fastest_algorithm(x_TK, packed_NK, bias_N))
    return lambda: two_four_linear(x_TK, sparse_NK, bias_N)


def compact(weight_NK: "Tensor", x_TK: "Tensor") -> Product:
    """The rows and columns that are not wholly zero, each in a multiple of 64.

    A network is pruned to such sizes for a GPU: others leave tiles of tensor cores partly empty.
    """
    rows_N = in_steps((weight_NK != 0).any(1))
    columns_K = in_steps((weight_NK != 0).any(0))
    return dense(weight_NK[rows_N][:, columns_K].contiguous(), x_TK[:, columns_K].contiguous())


def in_steps(kept: "Tensor", step: int = _STEP) -> "Tensor":
    """The kept ones, and others up to a multiple of ``step``, as far as there are any."""
    wanted = min(len(kept), -(-int(kept.sum()) // step) * step)
    place = kept.int().argsort(descending=True, stable=True)[:wanted]
    found = kept.clone()
    found[place] = True
    return found


def packed_blocks(weight_NK: "Tensor", pattern: Block) -> tuple["Tensor", "Tensor"]:
    """Values ``[G, R, J]`` of a block-sparse weight, and the inputs ``[G, J]`` they multiply."""
    N, K = weight_NK.shape
    G, R = N // pattern.rows, pattern.rows
    weight_GRK = weight_NK.reshape(G, R, K)
    kept_GK = (weight_GRK != 0).any(1)
    J = int(kept_GK.sum(1).max())
    # A group that kept fewer, by a block that happens to be zero, reads an input more in vain.
    index_GJ = kept_GK.int().argsort(dim=1, descending=True, stable=True)[:, :J].sort(1).values
    values_GRJ = weight_GRK.gather(2, index_GJ[:, None].expand(G, R, J)).contiguous()
    return values_GRJ, index_GJ
