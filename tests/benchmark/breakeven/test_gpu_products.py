"""Products by every kernel give the dense product of the same weight, here on the CPU."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.benchmark.breakeven.gpu_products import (
    in_steps,
    packed_blocks,
    product_by,
    two_four,
)
from spd_deploy.benchmark.breakeven.map_plan import pattern_on_shape
from spd_deploy.benchmark.breakeven.product_kernels import kernels_of, why_none
from spd_deploy.benchmark.breakeven.time_on_gpu import pruned
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured

BLOCKS = [
    Block(rows=8, columns=1, sparsity=0.75),
    Block(rows=16, columns=4, sparsity=0.5),
    Block(rows=32, columns=2, sparsity=0.9),
]


def drawn(shape: tuple[int, int], tokens: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator), torch.randn(
        tokens, shape[1], generator=generator
    )


def expected(weight_NK: torch.Tensor, x_TK: torch.Tensor) -> torch.Tensor:
    return x_TK @ weight_NK.t() + 1


@pytest.mark.parametrize("pattern", BLOCKS, ids=lambda p: f"{p}@{p.sparsity}")
@pytest.mark.parametrize("shape", [(32, 64), (64, 40)], ids=str)
def test_gathered_is_the_dense_product(pattern: Block, shape: tuple[int, int]) -> None:
    """Picked rows and a batched product give what all rows give, transposed."""
    weight_NK, x_TK = drawn(shape)
    pruned_NK = pruned(weight_NK, pattern)

    found_NT = product_by("gathered", pruned_NK, x_TK, pattern)()

    torch.testing.assert_close(found_NT.t(), expected(pruned_NK, x_TK))
    values_GRJ, index_GJ = packed_blocks(pruned_NK, pattern)
    assert values_GRJ.numel() == pruned_NK.count_nonzero()
    assert index_GJ.shape == (values_GRJ.shape[0], values_GRJ.shape[2])


def test_a_block_that_happens_to_be_zero_costs_an_input_and_no_truth() -> None:
    """Groups that kept unlike numbers of inputs are packed to the most of them."""
    pattern = Block(rows=8, columns=1, sparsity=0.5)
    weight_NK, x_TK = drawn((16, 8))
    pruned_NK = pruned(weight_NK, pattern)
    first = int(pruned_NK[:8].any(0).nonzero()[0])
    pruned_NK[:8, first] = 0.0

    found_NT = product_by("gathered", pruned_NK, x_TK, pattern)()

    torch.testing.assert_close(found_NT.t(), expected(pruned_NK, x_TK))


@pytest.mark.parametrize("shape", [(256, 16), (16, 256)], ids=str)
def test_compact_is_the_dense_product_of_what_is_left(shape: tuple[int, int]) -> None:
    """Kept rows, up to a multiple of 64, have the dense product's numbers; the rest is not run."""
    pattern = Structured(sparsity=0.9)
    weight_NK, x_TK = drawn(shape)
    pruned_NK = pruned(weight_NK, pattern)

    found = product_by("compact", pruned_NK, x_TK, pattern)()

    rows_N = in_steps(pruned_NK.any(1))
    assert found.shape[1] == min(64, shape[0])
    torch.testing.assert_close(found, expected(pruned_NK, x_TK)[:, rows_N])
    assert pattern_on_shape(pattern, shape).holds(pruned_NK)


@given(kept=st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_compact_size_is_a_multiple_of_64(kept: list[bool]) -> None:
    """Nothing that is kept is left out, and no more is added than a multiple needs."""
    found = in_steps(torch.tensor(kept))

    size, wanted = int(found.sum()), sum(kept)
    assert not (torch.tensor(kept) & ~found).any()
    assert wanted <= size < wanted + 64
    assert size % 64 == 0 or size == len(kept)


@pytest.mark.parametrize(
    ("pattern", "kernels"),
    [
        (BLOCKS[0], ("gathered", "triton")),
        (NM(n=2, m=4), ("sparse tensor cores",)),
        (NM(n=1, m=4), ()),
        (Structured(), ("compact",)),
        (Unstructured(), ()),
    ],
    ids=str,
)
def test_every_pattern_has_kernels_or_a_reason(pattern: Pattern, kernels: tuple[str, ...]) -> None:
    """What nothing on a GPU skips says why."""
    assert kernels_of(pattern, "cuda") == kernels
    if not kernels:
        assert why_none(pattern, None).startswith(str(pattern))


def test_sizes_that_sparse_tensor_cores_refuse_are_told() -> None:
    """Outputs and inputs must be multiples, which is said before the library is asked."""
    weight_NK, x_TK = drawn((48, 64))

    with pytest.raises(Unavailable, match="multiples of 32 outputs and 64 inputs; got 48x64"):
        two_four(weight_NK.half(), x_TK.half())


def test_what_a_library_refuses_is_a_reason() -> None:
    """On a CPU there are no sparse tensor cores, and PyTorch's own words say so."""
    weight_NK, x_TK = drawn((64, 64))
    pruned_NK = pruned(weight_NK, NM(n=2, m=4)).half()

    with pytest.raises(Unavailable, match="this product does not run here"):
        product_by("sparse tensor cores", pruned_NK, x_TK.half(), NM(n=2, m=4))


@pytest.mark.gpu
def test_sparse_tensor_cores_give_the_dense_product() -> None:
    """On a GPU 2:4 gives what the dense product of the same weight gives, in half precision."""
    weight_NK, x_TK = drawn((128, 128), tokens=64)
    pruned_NK = pruned(weight_NK, NM(n=2, m=4)).half().cuda()
    x_TK = x_TK.half().cuda()

    found = product_by("sparse tensor cores", pruned_NK, x_TK, NM(n=2, m=4))()

    torch.testing.assert_close(
        found.float(), expected(pruned_NK.float(), x_TK.float()), rtol=1e-2, atol=5e-2
    )
