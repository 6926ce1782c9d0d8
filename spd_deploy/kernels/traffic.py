"""How many bytes a block-sparse product reads and writes through the L2 cache of a GPU.

The product is bound by these, not by the tensor cores (``sources/linear.py``). So the figure beside
a measured time gives the bandwidth that was reached, and says what a tile or another kernel could
gain at most. It counts what programs ask of L2: what stays in shared memory is read once.
"""

from spd_deploy.domain.number_types import NUMBER_TYPES
from spd_deploy.kernels.stationary import StationaryTile
from spd_deploy.kernels.tiles import ProblemSize, Tile

_INDEX_BYTES = 4


def streamed_bytes(problem: ProblemSize, tile: Tile, *, residual: bool = False) -> int:
    """Bytes where each program reads its weights and its kept inputs anew.

    Taller tiles read activations less often, wider ones weights.
    """
    row_tiles = problem.groups * -(-problem.rows // tile.rows)
    token_tiles = -(-problem.tokens // tile.tokens)
    weights = token_tiles * _weight_bytes(problem)
    indices = token_tiles * row_tiles * problem.inputs * _INDEX_BYTES
    return weights + indices + _activation_bytes(problem, row_tiles, residual=residual)


def stationary_bytes(problem: ProblemSize, tile: StationaryTile, *, residual: bool = False) -> int:
    """Bytes where a program keeps the weights of its rows and walks over tiles of tokens.

    As many programs as the tile has splits share the same rows, and each reads their weights.
    """
    row_tiles = problem.groups * -(-problem.rows // tile.rows)
    weights = tile.splits * (_weight_bytes(problem) + row_tiles * problem.inputs * _INDEX_BYTES)
    return weights + _activation_bytes(problem, row_tiles, residual=residual)


def least_bytes(problem: ProblemSize, *, residual: bool = False) -> int:
    """Bytes that no kernel over the same groups can avoid: each group's inputs and outputs."""
    return _activation_bytes(problem, problem.groups, residual=residual)


def _weight_bytes(problem: ProblemSize) -> int:
    """Bytes of all kept weights."""
    size = problem.groups * problem.rows * problem.inputs
    return size * NUMBER_TYPES[problem.dtype].bytes


def _activation_bytes(problem: ProblemSize, row_tiles: int, *, residual: bool) -> int:
    """Bytes of the inputs that each tile of rows gathers, of the outputs and of the residual."""
    gathered = row_tiles * problem.inputs * problem.tokens
    outputs = problem.groups * problem.rows * problem.tokens
    return (gathered + outputs * (2 if residual else 1)) * NUMBER_TYPES[problem.dtype].bytes
