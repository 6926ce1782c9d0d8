"""The block-sparse product with the tile that is fastest on this GPU, by Triton's autotuner.

A class of products is tuned at its first launch, in a network's warm-up. A class is the groups,
rows, kept inputs, tokens up to the next power of two, dtype and epilogue. Tuning takes about a
minute, mostly for compiling. Triton stores compiled kernels and times in its cache folder,
``~/.triton/cache`` or ``TRITON_CACHE_DIR``, so that later processes do not tune again.
"""

from typing import Any

import triton

from spd_deploy.kernels.sources.linear import block_linear
from spd_deploy.kernels.tiles import TILES, ProblemSize, Tile, candidates
from spd_deploy.kernels.weights import float_type_of
from spd_deploy.timing.cuda_clock import graph_seconds


def config_of(tile: Tile) -> Any:
    """A tile as a ``triton.Config``."""
    return triton.Config(tile.constants, num_warps=tile.warps, num_stages=tile.stages)


def tile_of(config: Any) -> Tile:
    """The tile of a ``triton.Config``; the inverse of :func:`config_of`."""
    of = config.kwargs
    return Tile(
        rows=of["BLOCK_R"],
        tokens=of["BLOCK_T"],
        inputs=of["BLOCK_J"],
        warps=config.num_warps,
        stages=config.num_stages,
        swap_operands=of["SWAP_OPERANDS"],
    )


def prune_configs(configs: list[Any], named: dict[str, Any], **_: object) -> list[Any]:
    """The configs whose tiles are candidates of the product; Triton's ``early_config_prune``."""
    problem = ProblemSize(
        groups=named["G"],
        rows=named["R"],
        inputs=named["J"],
        tokens=named["T"],
        dtype=float_type_of(named["x"].dtype),
    )
    wanted = set(candidates(problem))
    return [config for config in configs if tile_of(config) in wanted]


def do_bench(launch: Any, quantiles: tuple[float, ...]) -> list[float]:
    """The median seconds of a launch, repeated for each quantile that Triton asks for.

    Nothing can be measured during the capture of a CUDA graph, so the caller must have launched the
    product before.
    """
    import torch

    assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - see above
    return [graph_seconds(launch)] * len(quantiles)


tuned_block_linear = triton.autotune(
    configs=[config_of(tile) for tile in TILES],
    key=["G", "R", "J", "tokens_class", "ACTIVATION", "RESIDUAL"],
    prune_configs_by={"early_config_prune": prune_configs},
    do_bench=do_bench,
    cache_results=True,
)(block_linear)
