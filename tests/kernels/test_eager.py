"""The kernels' work in plain PyTorch, and weights as the kernels read them."""

import pytest
import torch

from spd_deploy.domain.errors import BadArtefact
from spd_deploy.kernels import eager
from spd_deploy.kernels.weights import BlockWeight
from tests.kernels.made import CLOSE, activations, expected, made, off


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("columns", [1, 4])
def test_the_product_is_the_dense_one(dtype: str, columns: int) -> None:
    """With bias, activation and residual, in every precision."""
    product = made(3, 8, 5, 12, columns=columns, dtype=dtype)  # type: ignore[arg-type]
    x_KT = activations(12 * columns, 7, dtype)  # type: ignore[arg-type]
    added = activations(24, 7, dtype, seed=2)  # type: ignore[arg-type]

    found = eager.block_linear(x_KT, product.weight, activation="gelu", residual_NT=added)

    wanted = expected(product, x_KT, activation="gelu", residual_NT=added)
    assert off(found, wanted) <= 2 * CLOSE[dtype]


def test_inputs_are_padded_to_16() -> None:
    """With values of zero, over an input that the group reads anyway."""
    product = made(2, 4, 5, 9)

    weight = product.weight

    assert weight.values_GRJ.shape == (2, 4, 16)
    assert torch.equal(weight.values_GRJ[:, :, :5], product.values_GRJ)
    assert not weight.values_GRJ[:, :, 5:].any()
    assert torch.equal(weight.rows_GJ[:, 5:], weight.rows_GJ[:, 4:5].expand(2, 11))


def test_joined_weights_give_all_outputs() -> None:
    """Weights of one size run as one; weights of several sizes do not."""
    first, second, other = made(2, 16, 9, 20), made(1, 16, 9, 20, seed=5), made(1, 16, 30, 40)
    x_KT = activations(20, 6)

    joined = BlockWeight.joined([first.weight, second.weight])

    assert joined is not None
    parts = [eager.block_linear(x_KT, one.weight) for one in (first, second)]
    assert torch.equal(eager.block_linear(x_KT, joined), torch.cat(parts))
    assert BlockWeight.joined([first.weight, other.weight]) is None


@pytest.mark.parametrize(
    ("values", "index", "bias"),
    [
        ((2, 4, 6), [[0, 1, 2], [0, 1, 9]], 8),  # a block that is not there
        ((2, 4, 6), [[0, 1, 2], [0, 1, -1]], 8),
        ((2, 4, 6), [[0, 1], [0, 1]], 8),
        ((2, 4, 6), [[0, 1, 2]], 8),
        ((2, 4, 6), [[0, 1, 2], [0, 1, 2]], 7),
        ((8, 6), [[0, 1, 2], [0, 1, 2]], 8),
        ((2, 4, 0), [[], []], 8),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    values: tuple[int, ...], index: list[list[int]], bias: int
) -> None:
    """No kernel is told to read where nothing is."""
    with pytest.raises(BadArtefact, match="contradict each other"):
        BlockWeight.of(
            torch.zeros(values),
            torch.tensor(index, dtype=torch.int32),
            torch.zeros(bias),
            columns=2,
            inputs=18,
        )
