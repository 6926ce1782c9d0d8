"""Triton's tuner on the block-sparse product, in its interpreter, by a clock that is made up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import autotuner

from spd_deploy.kernels.launch import block_linear
from spd_deploy.kernels.sources import tuned
from spd_deploy.kernels.sources.tuned import config_of, tile_of, tuned_block_linear
from spd_deploy.kernels.tiles import TILES, Tile, candidates
from spd_deploy.kernels.two_four import TwoFourSelector, supports_two_four
from tests.kernels.interpreter import Interpreter
from tests.kernels.made import CLOSE, activations, expected, made, off


def test_the_fastest_candidate_of_a_class_is_taken(interpreter: Interpreter) -> None:
    """All candidates are measured once for as many tokens to the next power of two."""
    product = made(2, 24, 21, 40)
    problem = product.weight.problem(40)
    tiles = candidates(problem)
    fastest = tiles[len(tiles) // 2]
    found = {}

    for tokens in (40, 64, 65):
        x_KT = activations(40, tokens)
        y_NT, measured = interpreter.tuned(x_KT, product.weight, fastest)
        assert off(y_NT, expected(product, x_KT)) <= CLOSE["fp16"]
        found[tokens] = measured.int().tolist()

    sizes = [[tile.rows, tile.tokens, tile.inputs] for tile in tiles]
    taken = [fastest.rows, fastest.tokens, fastest.inputs]
    assert found[40] == [*sizes, taken]
    assert found[64] == [taken]
    assert len(found[65]) == len(candidates(product.weight.problem(65))) + 1


def test_a_class_is_told_by_arguments_of_the_kernel() -> None:
    """A name that is none would be passed over, and all products would share one tile."""
    assert set(tuned_block_linear.keys) <= set(tuned_block_linear.arg_names)
    assert tuned_block_linear.cache_results


def test_what_was_measured_is_read_by_later_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Triton's cache folder, for the kind of GPU that it was measured on."""
    gpu = SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", 90, 32))
    measured: list[Tile] = []

    def bench(*arguments: object, config: Any, **constants: object) -> list[float]:
        measured.append(tile_of(config))
        return [float(len(measured) != 3)] * 3

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotuner, "driver", SimpleNamespace(active=gpu))
    monkeypatch.setattr(tuned_block_linear, "_bench", bench)
    monkeypatch.setattr(tuned_block_linear.fn, "run", lambda *_, **__: None)  # no launch
    product, x_KT = made(2, 64, 21, 40), activations(40, 40)
    taken = []

    for _ in range(2):
        monkeypatch.setattr(tuned_block_linear, "cache", {})  # as in a new process
        block_linear(x_KT, product.weight)
        taken.append(tile_of(tuned_block_linear.best_config))

    assert measured == list(candidates(product.weight.problem(40)))
    assert taken == [measured[2]] * 2


def test_a_tile_is_a_configuration() -> None:
    """And comes back as it was."""
    assert [tile_of(config_of(tile)) for tile in TILES] == list(TILES)
    assert [tile_of(config) for config in tuned_block_linear.configs] == list(TILES)


def test_times_are_medians_by_our_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch's median stands for every quantile; in a capture nothing is measured."""
    monkeypatch.setattr(tuned, "graph_seconds", lambda run: 2e-6)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert tuned.do_bench(lambda: None, (0.5, 0.2, 0.8)) == [2e-6] * 3

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(AssertionError):
        tuned.do_bench(lambda: None, (0.5,))


@pytest.mark.parametrize(
    ("sparse_s", "wins"), [(1e-6, True), (3e-6, False), (None, False)], ids=str
)
def test_2_4_is_taken_where_it_is_faster(
    sparse_s: float | None, wins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each product is measured once; a library that cannot do it has no time, and warns."""
    x_TK, weight_NK, bias_N = torch.zeros(8, 64), torch.zeros(32, 64), torch.zeros(32)
    times = iter([2e-6, sparse_s])

    def seconds(run: object) -> float:
        found = next(times)
        if found is None:
            raise RuntimeError("cuSPARSELt not supported on your machine.")
        return found

    monkeypatch.setattr("spd_deploy.kernels.two_four.graph_seconds", seconds)
    monkeypatch.setattr("spd_deploy.kernels.two_four.fastest_algorithm", lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    selector = TwoFourSelector()

    if sparse_s is None:
        with pytest.warns(UserWarning, match="2:4 does not run fp32 32x64 8 tokens"):
            assert not selector.times(x_TK, weight_NK, weight_NK, bias_N).wins
    assert selector.times(x_TK, weight_NK, weight_NK, bias_N).wins is wins
    assert selector.times(x_TK, weight_NK, weight_NK, bias_N).wins is wins  # without a clock


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((768, 3072), "fp16", True),
        ((32, 64), "bf16", True),
        ((768, 768), "fp32", False),
        ((2, 768), "fp16", False),
        ((768, 96), "fp16", False),
    ],
)
def test_which_matrices_2_4_takes(shape: tuple[int, int], dtype: str, takes: bool) -> None:
    """Outputs in 32s, inputs in 64s, in fp16 and bf16."""
    assert supports_two_four(shape, dtype) is takes
