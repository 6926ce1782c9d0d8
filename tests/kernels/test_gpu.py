"""The kernels on a real GPU: dense PyTorch's numbers, and the same bits from a CUDA graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels import eager, launch
from spd_deploy.kernels.stationary import stationary_tile
from spd_deploy.kernels.tiles import Tile, candidates
from spd_deploy.kernels.two_four import (
    TwoFourSelector,
    to_two_four,
    two_four_linear,
    with_algorithm,
)
from spd_deploy.timing.cuda_clock import graph_seconds
from tests.kernels.made import CLOSE, Made, activations, expected, made, off

pytestmark = pytest.mark.gpu
EVERY_DTYPE = pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])


def captured(run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A CUDA graph of ``run`` after a warm-up, and where its result will be."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    return graph, found


@EVERY_DTYPE
@pytest.mark.parametrize("rows", [8, 16, 32, 64, 96, 128])
@pytest.mark.parametrize("tokens", [1, 37, 128, 1024])
def test_the_product_is_the_dense_one(dtype: FloatType, rows: int, tokens: int) -> None:
    """Heights of blocks and numbers of tokens, with everything fused after the product."""
    product = made(6, rows, 77, 768, dtype=dtype, device="cuda")
    x_KT, added = activations(768, tokens, dtype), activations(6 * rows, tokens, dtype, seed=2)

    found = launch.block_linear(
        x_KT.cuda(),
        product.weight,
        candidates(product.weight.problem(tokens))[0],
        activation="gelu",
        residual_NT=added.cuda(),
    )

    wanted = expected(product, x_KT, activation="gelu", residual_NT=added)
    assert off(found, wanted) <= 2 * CLOSE[dtype]


@EVERY_DTYPE
@pytest.mark.parametrize("tokens", [1, 100, 4096])
def test_weights_in_shared_memory_give_the_dense_product(dtype: FloatType, tokens: int) -> None:
    """With everything fused after the product, by the tile that fits this GPU."""
    product = made(6, 64, 77, 768, dtype=dtype, device="cuda")
    x_KT, added = activations(768, tokens, dtype), activations(6 * 64, tokens, dtype, seed=2)
    properties: Any = torch.cuda.get_device_properties()
    tile = stationary_tile(
        product.weight.problem(tokens),
        shared_bytes=properties.shared_memory_per_block_optin,
        multiprocessors=properties.multi_processor_count,
        residual=True,
    )
    assert tile is not None

    found = launch.block_linear(
        x_KT.cuda(), product.weight, tile, activation="gelu", residual_NT=added.cuda()
    )

    wanted = expected(product, x_KT, activation="gelu", residual_NT=added)
    assert off(found, wanted) <= 2 * CLOSE[dtype]


def candidate_runs(product: Made, tokens: int) -> list[Tile]:
    """The candidates for a product."""
    return list(candidates(product.weight.problem(tokens)))


@pytest.mark.parametrize("rows", [32, 64])
def test_every_candidate_gives_the_same_numbers(rows: int) -> None:
    """Whatever tile is measured to be fastest, the product is right."""
    product = made(4, rows, 77, 768, device="cuda")
    x_KT = activations(768, 256)
    wanted = expected(product, x_KT)

    for tile in candidate_runs(product, 256):
        found = launch.block_linear(x_KT.cuda(), product.weight, tile)
        assert off(found, wanted) <= CLOSE["fp16"], tile


@EVERY_DTYPE
def test_attention_and_norm_are_pytorchs(dtype: FloatType) -> None:
    """Heads of 64 over rows of mixed lengths; features of BERT-base."""
    q, k, v = (activations(768, 3 * 100, dtype, seed=i) for i in range(3))
    real = torch.arange(100)[None, :] < torch.tensor([100, 7, 1])[:, None]
    bias_BS = torch.where(real, 0.0, -1.7e38)
    weight_H, bias_H = torch.rand(768), torch.randn(768)

    context = launch.attention(q.cuda(), k.cuda(), v.cuda(), bias_BS.cuda(), heads=12)
    normed = launch.layer_norm(q.cuda(), weight_H.cuda(), bias_H.cuda(), 1e-12)

    wanted = eager.attention(q.float(), k.float(), v.float(), bias_BS, heads=12)
    assert off(context, wanted) <= 2 * CLOSE[dtype]
    wanted = eager.layer_norm(q.float(), weight_H, bias_H, 1e-12)
    assert off(normed, wanted) <= 2 * CLOSE[dtype]


def test_a_graph_gives_the_same_bits() -> None:
    """Replayed over new activations in the same place, as launched one by one."""
    product = made(12, 64, 77, 768, device="cuda")
    tile = candidates(product.weight.problem(512))[0]
    x_KT = activations(768, 512).cuda()
    graph, found = captured(lambda: launch.block_linear(x_KT, product.weight, tile))

    x_KT.copy_(activations(768, 512, seed=9))
    graph.replay()

    assert torch.equal(found, launch.block_linear(x_KT, product.weight, tile))


def test_wide_addresses_reach_beyond_32_bits() -> None:
    """A tensor of more than 2^31 elements: the last tokens are those of a small one."""
    features, tokens = 768, 2**31 // 768 + 4096
    if torch.cuda.mem_get_info()[0] < 3 * 2 * features * tokens:
        pytest.skip("the GPU has too little free memory for a tensor of 2^31 elements")
    product = made(1, 64, 77, features, device="cuda")
    x_KT = torch.zeros(features, tokens, dtype=torch.float16, device="cuda")
    last = activations(features, 64)
    x_KT[:, -64:] = last.cuda()
    tile = Tile(rows=64, tokens=128, inputs=32)

    found = launch.block_linear(x_KT, product.weight, tile)

    assert off(found[:, -64:], expected(product, last)) <= CLOSE["fp16"]


def test_a_product_is_tuned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs with a candidate, whose times Triton keeps on disk for other processes to read."""
    from spd_deploy.kernels.sources.tuned import tile_of, tuned_block_linear

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuned_block_linear, "cache", {})
    product, x_KT = made(12, 64, 77, 768, device="cuda"), activations(768, 1024)

    found = launch.block_linear(x_KT.cuda(), product.weight)

    tile = tile_of(tuned_block_linear.best_config)
    assert tile in candidates(product.weight.problem(1024))
    assert off(found, expected(product, x_KT)) <= CLOSE["fp16"]
    assert len(list(tmp_path.rglob("*.autotune.json"))) == 1
    tuned_block_linear.cache.clear()  # as in a new process
    monkeypatch.setattr(tuned_block_linear, "_bench", None)
    launch.block_linear(x_KT.cuda(), product.weight)
    assert tile_of(tuned_block_linear.best_config) == tile


def test_a_graph_is_timed() -> None:
    """Twice the launches take longer than half of them would."""
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)

    assert 0 < graph_seconds(lambda: x @ x) < 1


def test_2_4_tensor_cores_give_the_dense_numbers() -> None:
    """Both forms of a weight multiply alike, and which is the faster is measured once."""
    weight_NK = torch.randn(768, 768, device="cuda", dtype=torch.float16)
    weight_NK *= torch.tensor([0, 1, 0, 1], device="cuda").repeat(192)
    x_TK = torch.randn(256, 768, device="cuda", dtype=torch.float16)
    bias_N = torch.randn(768, device="cuda", dtype=torch.float16)
    sparse_NK, selector = to_two_four(weight_NK), TwoFourSelector()

    found = two_four_linear(x_TK, sparse_NK, bias_N)
    wins = [selector.times(x_TK, weight_NK, sparse_NK, bias_N).wins for _ in range(2)]
    for algorithm in (0, selector.times(x_TK, weight_NK, sparse_NK, bias_N).algorithm):
        packed_NK = with_algorithm(sparse_NK, algorithm)
        again = two_four_linear(x_TK, packed_NK, bias_N)
        assert off(again, found.float().cpu()) <= 2 * CLOSE["fp16"]

    assert found.is_contiguous()
    wanted = torch.nn.functional.linear(x_TK, weight_NK, bias_N)
    assert off(found, wanted.float().cpu()) <= 2 * CLOSE["fp16"]
    assert len(selector.known) == 1 and len(set(wins)) == 1
