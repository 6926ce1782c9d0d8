"""The tiles of a block-sparse product: all possible ones, and the candidates to measure.

The fastest tile depends on the GPU and on the number of inputs that a group kept. Triton's
autotuner therefore measures the candidates on the GPU at hand (``sources/tuned.py``).
"""

from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.number_types import NUMBER_TYPES, FloatType

# The sides of a tile: the smallest that tensor cores take, and the most rows. Groups with fewer
# rows than the smallest are padded to it.
MIN_TILE_SIDE = 16
MAX_TILE_ROWS = 128
# Fewest programs that fill a large GPU: about two for each of an H100's 132 multiprocessors.
_MIN_PROGRAMS = 256
# Most shared memory of a program, so that two fit on a multiprocessor of an A100 or H100.
_MAX_SHARED_BYTES = 100 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """The sizes of one program's part of a product, and its launch options.

    Attributes:
        rows: outputs of a program, all of one group.
        tokens: tokens of a program.
        inputs: kept inputs of one step of the loop.
        warps: groups of 32 threads.
        stages: steps whose loads are in flight at the same time.
        swap_operands: compute the transposed product, whose M side is the tokens: Hopper's tensor
            cores take 64 of it at a time.
    """

    rows: int
    tokens: int
    inputs: int
    warps: int = 4
    stages: int = 4
    swap_operands: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that are no powers of two, and sides that tensor cores do not take."""
        sides = (self.rows, self.tokens, self.inputs)
        powers = all(n >= 1 and n & (n - 1) == 0 for n in (*sides, self.warps))
        if not (
            powers and min(sides) >= MIN_TILE_SIDE and self.warps <= 16 and 1 <= self.stages <= 8
        ):
            raise BadSetting(
                "no kernel can be compiled for this tile", got=self, fix="use powers of two from 16"
            )

    @property
    def constants(self) -> dict[str, Any]:
        """The kernel's ``tl.constexpr`` arguments."""
        return {
            "SWAP_OPERANDS": self.swap_operands,
            "BLOCK_R": self.rows,
            "BLOCK_T": self.tokens,
            "BLOCK_J": self.inputs,
        }

    @property
    def options(self) -> dict[str, int]:
        """The keyword arguments of a launch that are Triton's own: warps and pipeline stages."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def shared_bytes(self, dtype: FloatType) -> int:
        """Shared memory in bytes of the loads in flight."""
        return (self.rows + self.tokens) * self.inputs * self.stages * NUMBER_TYPES[dtype].bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemSize:
    """Size of a product: G groups of R rows, J kept inputs in each group, and T tokens."""

    groups: int
    rows: int
    inputs: int
    tokens: int
    dtype: FloatType

    def programs(self, tile: Tile) -> int:
        """Number of programs that cover the product."""
        return self.groups * -(-self.rows // tile.rows) * -(-self.tokens // tile.tokens)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << max(0, n - 1).bit_length()


def rows_of_tiles(rows: int) -> tuple[int, ...]:
    """The two largest tile heights that divide ``rows``, else the height it is padded to."""
    whole = tuple(n for n in (MAX_TILE_ROWS, 64, 32, MIN_TILE_SIDE) if rows % n == 0)
    return whole[:2] or (min(MAX_TILE_ROWS, max(MIN_TILE_SIDE, next_power_of_2(rows))),)


def candidates(problem: ProblemSize) -> tuple[Tile, ...]:
    """The :data:`TILES` to measure for a product, at most about two dozen.

    They give enough programs to fill a GPU, have no step longer than J, and let two programs fit
    into a multiprocessor's shared memory.
    """
    rows = rows_of_tiles(problem.rows)
    return tuple(tile for tile in TILES if tile.rows in rows and _fits(tile, problem))


def _fits(tile: Tile, problem: ProblemSize) -> bool:
    """Whether a tile is neither too large nor too small for a product."""
    longest = max(MIN_TILE_SIDE, next_power_of_2(problem.tokens))
    if tile.tokens > longest or (tile.tokens == MIN_TILE_SIDE and longest > 4 * MIN_TILE_SIDE):
        return False
    if tile.inputs > max(MIN_TILE_SIDE, problem.inputs):
        return False
    if tile.tokens > 32 and 8 * problem.programs(tile) < _MIN_PROGRAMS:
        return False
    return tile.shared_bytes(problem.dtype) <= _MAX_SHARED_BYTES


def _tile(rows: int, tokens: int, inputs: int, *, stages: int) -> Tile:
    """A tile with its number of warps, so that a thread holds at most 64 accumulators.

    There are at least 4 warps, because Hopper's tensor-core instruction spans four.
    """
    warps = 8 if rows * tokens >= 64 * 256 else 4
    return Tile(
        rows=rows,
        tokens=tokens,
        inputs=inputs,
        warps=warps,
        stages=stages,
        swap_operands=rows < 64 <= tokens,
    )


# Every tile that some product may measure.
TILES = tuple(
    _tile(rows, tokens, inputs, stages=3 if inputs == 64 else 5)
    for rows in (MAX_TILE_ROWS, 64, 32, MIN_TILE_SIDE)
    for tokens in (MIN_TILE_SIDE, 32, 64, 128, 256)
    for inputs in (MIN_TILE_SIDE, 32, 64)
)
