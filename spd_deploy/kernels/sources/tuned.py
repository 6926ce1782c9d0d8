"""The block-sparse product with the tile that is fastest here, by Triton's own autotuner.

A class of products (groups, rows, kept inputs, tokens to the next power of two, numbers and
epilogue) is tuned when it first comes up, in a network's warm-up: a minute or so the first time,
most of it compiling. Triton keeps compiled kernels and measured times in its cache folder,
``~/.triton/cache`` or ``TRITON_CACHE_DIR``, so that later processes read what the first one found.
"""

from typing import Any

import triton

from spd_deploy.kernels.sources.linear import block_linear
from spd_deploy.kernels.tiles import TILES, Problem, Tile, candidates
from spd_deploy.kernels.weights import number_of
from spd_deploy.timing.cuda_clock import graph_seconds


def config_of(tile: Tile) -> Any:
    """A tile as Triton takes it."""
    return triton.Config(tile.constants, num_warps=tile.warps, num_stages=tile.stages)


def tile_of(config: Any) -> Tile:
    """The inverse."""
    of = config.kwargs
    return Tile(
        rows=of["BLOCK_R"],
        tokens=of["BLOCK_T"],
        inputs=of["BLOCK_J"],
        warps=config.num_warps,
        stages=config.num_stages,
        tokens_first=of["TOKENS_FIRST"],
    )


def worth_measuring(configs: list[Any], named: dict[str, Any], **_: object) -> list[Any]:
    """The configurations whose tiles suit the product (``tiles.candidates``)."""
    problem = Problem(
        groups=named["G"],
        rows=named["R"],
        inputs=named["J"],
        tokens=named["T"],
        number=number_of(named["x"].dtype),
    )
    wanted = set(candidates(problem))
    return [config for config in configs if tile_of(config) in wanted]


def measured(launch: Any, quantiles: tuple[float, ...]) -> list[float]:
    """The median time of a launch for each quantile that Triton asks for.

    While a CUDA graph is captured nothing may be measured, so a product that comes up first in a
    capture is a fault of the caller.
    """
    import torch

    assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - see above
    return [graph_seconds(launch)] * len(quantiles)


tuned_block_linear = triton.autotune(
    configs=[config_of(tile) for tile in TILES],
    key=["G", "R", "J", "tokens_class", "ACTIVATION", "RESIDUAL"],
    prune_configs_by={"early_config_prune": worth_measuring},
    do_bench=measured,
    cache_results=True,
)(block_linear)
