"""Which tile a product runs with on this GPU: the remembered one, else the fastest of a few.

Measuring takes a minute or so the first time, most of it compiling, whose results Triton keeps;
then a file is read. It happens in a network's warm-up. While a CUDA graph is captured nothing may
be measured, and nothing is: a product that comes up first in a capture is a fault of the caller.
"""

from typing import TYPE_CHECKING

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import version_of
from spd_deploy.kernels.launch import block_linear
from spd_deploy.kernels.remembered import BestTile, Memory, Place
from spd_deploy.kernels.tiles import Problem, Tile, candidates, default_tile
from spd_deploy.kernels.timing import graph_seconds
from spd_deploy.kernels.weights import BlockWeight

if TYPE_CHECKING:
    from torch import Tensor


class Tuner:
    """Knows the tile of each product of a network; one for all networks on a GPU."""

    def __init__(self, memory: Memory, *, gpu: str, measure: bool = True) -> None:
        """For the GPU of this name; without ``measure`` what is not remembered gets the default."""
        self.memory = memory
        self.measure = measure
        self.place = Place(gpu=gpu, version=f"triton {version_of('triton')}")
        self._tiles: dict[str, Tile] = {}

    def tile_for(
        self, problem: Problem, x_KT: "Tensor", weight: BlockWeight, residual_NT: "Tensor | None"
    ) -> Tile:
        """The tile of the product's class, measured on these operands if it is not known.

        Raises:
            Unavailable: no tile runs on this GPU.
        """
        name = problem.name
        if name not in self._tiles:
            known = self.memory.known.tile(self.place, name)
            if known is None:
                known = default_tile(problem)
                if self.measure:
                    known = self._measured(problem, x_KT, weight, residual_NT)
            self._tiles[name] = known
        return self._tiles[name]

    def _measured(
        self, problem: Problem, x_KT: "Tensor", weight: BlockWeight, residual_NT: "Tensor | None"
    ) -> Tile:
        """The fastest candidate, remembered."""
        import torch

        assert not torch.cuda.is_current_stream_capturing()  # noqa: S101 - see above
        seconds: dict[Tile, float] = {}
        failed: object = None
        for tile in candidates(problem):
            try:
                seconds[tile] = graph_seconds(
                    lambda tile=tile: block_linear(  # type: ignore[misc]
                        x_KT, weight, tile, activation=problem.activation, residual_NT=residual_NT
                    )
                )
            except torch.OutOfMemoryError:
                raise
            except Exception as err:  # noqa: BLE001 - a tile that asks too much of this GPU
                failed = err
        if not seconds:
            raise Unavailable(
                "the block-sparse kernel does not run on this GPU",
                got=failed,
                fix="export with --lowering dense, or use --device cpu",
            )
        best = min(seconds, key=lambda tile: seconds[tile])
        self.memory.keep(
            BestTile(place=self.place, problem=problem.name, tile=best, seconds=seconds[best])
        )
        return best
