"""The attention and layer-norm kernels, in Triton's interpreter, against PyTorch's own."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels import eager
from tests.kernels.interpreter import Interpreter
from tests.kernels.made import CLOSE, activations, off

HIDDEN = -1.7e38


def bias_of(lengths: list[int], longest: int) -> Tensor:
    """0 for tokens, very low for padding."""
    real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    return torch.where(real, 0.0, HIDDEN)


@pytest.mark.parametrize(
    ("dtype", "heads", "size", "lengths"),
    [
        ("fp16", 1, 16, [1]),
        ("fp16", 2, 24, [5, 17, 1]),
        ("fp16", 3, 32, [70, 3]),
        ("bf16", 2, 24, [5, 17, 1]),
        ("fp32", 1, 64, [130]),
    ],
)
def test_attention_is_pytorchs(
    interpreter: Interpreter, dtype: FloatType, heads: int, size: int, lengths: list[int]
) -> None:
    """Any number and width of heads, mixed lengths, and lengths that no tile divides."""
    S, B, features = max(lengths), len(lengths), heads * size
    q, k, v = (activations(features, B * S, dtype, seed=i) for i in range(3))
    bias_BS = bias_of(lengths, S)

    found = interpreter.attention(q, k, v, bias_BS, heads)

    wanted = eager.attention(q.float(), k.float(), v.float(), bias_BS, heads=heads)
    assert off(found, wanted) <= 2 * CLOSE[dtype]


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize(("asking", "lengths"), [(70, [70, 3]), (1, [20, 5, 9])])
def test_biases_by_distance_are_added(
    interpreter: Interpreter, dtype: FloatType, asking: int, lengths: list[int]
) -> None:
    """Each head's own, for all queries and for the first alone, at any number of positions."""
    S, B = max(lengths), len(lengths)
    q = activations(48, B * asking, dtype)
    k, v = (activations(48, B * S, dtype, seed=i) for i in (1, 2))
    biases_AD = torch.randn(3, 2 * 75 - 1, generator=torch.Generator().manual_seed(4))
    bias_BS = bias_of(lengths, S)

    found = interpreter.attention(q, k, v, bias_BS, 3, biases_AD=biases_AD)

    score = torch.einsum(
        "adbq,adbk->baqk",
        *(x.float().reshape(3, 16, B, -1) for x in (q, k)),
    )
    pairs = biases_AD[:, 74 + torch.arange(S) - torch.arange(asking)[:, None]]
    share = (score / 4 + pairs + bias_BS[:, None, None, :]).softmax(-1)
    wanted = torch.einsum("baqk,adbk->adbq", share, v.float().reshape(3, 16, B, -1))
    assert off(found, wanted.reshape(48, -1)) <= 2 * CLOSE[dtype]
    plain = eager.attention(q.float(), k.float(), v.float(), bias_BS, heads=3, biases_AD=biases_AD)
    assert off(plain, wanted.reshape(48, -1)) <= CLOSE["fp32"]


def test_one_query_a_row(interpreter: Interpreter) -> None:
    """The last layer asks for each row's first token alone, over all of the row's keys."""
    q, k, v = activations(32, 3), activations(32, 21, seed=2), activations(32, 21, seed=3)
    bias_BS = bias_of([7, 2, 5], 7)

    found = interpreter.attention(q, k, v, bias_BS, 2)

    wanted = eager.attention(q.float(), k.float(), v.float(), bias_BS, heads=2)
    assert off(found, wanted) <= CLOSE["fp16"]
    assert torch.equal(found, interpreter.attention(q, k, v, bias_BS, 2, wide=True))


def test_a_row_of_padding_gives_numbers(interpreter: Interpreter) -> None:
    """Where every key of a row is hidden the context is finite, and no other row's is changed."""
    q, k, v = (activations(16, 12, seed=i) for i in range(3))

    found = interpreter.attention(q, k, v, bias_of([6, 0], 6), 1)

    assert found.isfinite().all()
    first = [x[:, :6].contiguous() for x in (q, k, v)]
    alone = interpreter.attention(first[0], first[1], first[2], bias_of([6], 6), 1)
    assert torch.equal(found[:, :6], alone)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize(("features", "tokens"), [(16, 1), (24, 37), (100, 9), (768, 4)])
def test_norm_is_pytorchs(
    interpreter: Interpreter, dtype: FloatType, features: int, tokens: int
) -> None:
    """Over the features of each token, of any dtype, with numbers that have a mean."""
    x_HT = activations(features, tokens, dtype) * 3 + 5
    weight_H, bias_H = torch.rand(features) + 0.5, torch.randn(features)

    found = interpreter.norm(x_HT, weight_H, bias_H, 1e-12)

    wanted = layer_norm(x_HT.float().T, (features,), weight_H, bias_H, 1e-12).T
    assert off(found, wanted) <= 2 * CLOSE[dtype]
    assert torch.equal(found, interpreter.norm(x_HT, weight_H, bias_H, 1e-12, wide=True))
