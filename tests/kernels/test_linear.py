"""The block-sparse kernel, in Triton's interpreter, against the dense product in PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.tiles import Tile, candidates
from spd_deploy.kernels.weights import BlockWeight
from tests.kernels.interpreter import Interpreter
from tests.kernels.made import CLOSE, activations, expected, made, off

SMALL = Tile(rows=16, tokens=16, inputs=32)


@pytest.mark.parametrize(
    ("dtype", "activation", "swap_operands", "residual"),
    [
        ("fp16", "none", False, True),
        ("fp16", "gelu", True, False),
        ("fp16", "gelu_tanh", False, False),
        ("fp16", "relu", True, True),
        ("fp16", "silu", False, True),
        ("bf16", "none", True, True),
        ("bf16", "gelu", False, False),
        ("fp32", "gelu", True, True),
        ("fp32", "gelu_tanh", False, False),
        ("fp32", "silu", True, False),
    ],
)
def test_every_epilogue_in_every_precision(
    interpreter: Interpreter, dtype: FloatType, activation: str, swap_operands: bool, residual: bool
) -> None:
    """Bias, activation and then the residual, whichever side the tensor core takes 64 of."""
    product = made(2, 24, 21, 40, dtype=dtype)
    x_KT = activations(40, 19, dtype)
    added = activations(48, 19, dtype, seed=2) if residual else None
    tile = Tile(rows=16, tokens=16, inputs=16, swap_operands=swap_operands)

    found = interpreter.linear(x_KT, product.weight, tile, activation=activation, residual_NT=added)

    wanted = expected(product, x_KT, activation=activation, residual_NT=added)
    assert off(found, wanted) <= CLOSE[dtype]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape(interpreter: Interpreter, data: st.DataObject) -> None:
    """Groups, rows, blocks of any width and tokens, whether a tile divides them or not."""
    groups, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70))
    columns, blocks = data.draw(st.sampled_from([1, 2, 3, 4, 16])), data.draw(st.integers(1, 24))
    kept, tokens = data.draw(st.integers(1, blocks)), data.draw(st.integers(1, 40))
    tile = Tile(
        rows=data.draw(st.sampled_from([16, 32, 64])),
        tokens=data.draw(st.sampled_from([16, 32])),
        inputs=data.draw(st.sampled_from([16, 32, 64])),
        swap_operands=data.draw(st.booleans()),
    )
    product = made(groups, rows, kept, blocks, columns=columns, seed=data.draw(st.integers(0, 9)))
    x_KT = activations(blocks * columns, tokens)

    found = interpreter.linear(x_KT, product.weight, tile)

    assert off(found, expected(product, x_KT)) <= CLOSE["fp16"]


@pytest.mark.parametrize("rows", [8, 16, 32, 64, 128])
def test_the_smallest_candidate(interpreter: Interpreter, rows: int) -> None:
    """Runs every usual height of a block, those below a tensor core's least included."""
    product = made(2, rows, 77, 96)
    x_KT = activations(96, 33)

    found = interpreter.linear(x_KT, product.weight, candidates(product.weight.problem(33))[0])

    assert off(found, expected(product, x_KT)) <= CLOSE["fp16"]


def test_addresses_in_64_bits(interpreter: Interpreter) -> None:
    """Where a tensor has 2^31 elements the same numbers come from wider addresses."""
    product = made(2, 32, 20, 40)
    x_KT, added = activations(40, 21), activations(64, 21, seed=3)

    found = interpreter.linear(x_KT, product.weight, SMALL, residual_NT=added, wide=True)

    assert torch.equal(found, interpreter.linear(x_KT, product.weight, SMALL, residual_NT=added))


def test_the_same_bits_again(interpreter: Interpreter) -> None:
    """A product is deterministic, and a token's outputs do not depend on its neighbours."""
    product = made(3, 16, 50, 64)
    x_KT = activations(64, 40)

    found = interpreter.linear(x_KT, product.weight, SMALL)

    assert torch.equal(found, interpreter.linear(x_KT, product.weight, SMALL))
    alone = interpreter.linear(x_KT[:, 5:6].contiguous(), product.weight, SMALL)
    assert torch.equal(found[:, 5:6], alone)


def test_what_is_not_kept_is_not_read(interpreter: Interpreter) -> None:
    """NaN in an input that a group dropped reaches none of its outputs, padding of J included."""
    product = made(2, 16, 5, 12)
    x_KT = activations(12, 16)
    dropped = set(range(12)) - set(product.index_GU[0].tolist())
    x_KT[sorted(dropped)] = torch.nan

    found = interpreter.linear(x_KT, product.weight, SMALL)

    assert not found[:16].isnan().any()
    assert found[16:].isnan().any()


def test_gelu_is_pytorchs(interpreter: Interpreter) -> None:
    """From where it is zero to where it changes nothing, within 1e-6 of PyTorch's by erf."""
    x_KT = torch.zeros(16, 512)
    x_KT[0] = torch.linspace(-12, 12, 512)
    weight = BlockWeight.of(
        torch.eye(1, 16)[None].expand(1, 16, 16).contiguous(),
        torch.arange(16, dtype=torch.int32)[None],
        torch.zeros(16),
        columns=1,
        inputs=16,
    )
    tile = Tile(rows=16, tokens=16, inputs=16)

    found = interpreter.linear(x_KT, weight, tile, activation="gelu")

    wanted = torch.nn.functional.gelu(x_KT[0].double())
    assert float((found[0].double() - wanted).abs().max()) < 1e-6
