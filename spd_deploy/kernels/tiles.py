"""How a block-sparse product is cut into tiles: which are possible, and which are worth measuring.

Which tile is fastest depends on the GPU and on how many inputs a group kept, so Triton's tuner
measures where they run (``sources/tuned.py``). Here are the pure parts.
"""

from dataclasses import dataclass
from typing import Any, Literal

from spd_deploy.domain.errors import BadSetting

Number = Literal["fp16", "bf16", "fp32"]
BYTES_OF: dict[Number, int] = {"fp16": 2, "bf16": 2, "fp32": 4}

# The least of either side that a tensor core takes; groups with fewer rows are padded to it.
LEAST = 16
# Programs that keep a large GPU busy: about two for each of an H100's 132 multiprocessors.
_BUSY = 256
_MOST_ROWS = 128
# Shared memory that a program may take so that two fit on an A100 or H100.
_SHARED_BYTES = 100 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One way to cut a product.

    Attributes:
        rows: outputs of a program, of one group.
        tokens: tokens of a program.
        inputs: kept inputs of a step.
        warps: groups of 32 threads.
        stages: steps whose loads are under way at once.
        tokens_first: whether tokens are the side that Hopper's tensor cores take 64 of.
    """

    rows: int
    tokens: int
    inputs: int
    warps: int = 4
    stages: int = 4
    tokens_first: bool = False

    def __post_init__(self) -> None:
        """Powers of two, no side below what a tensor core takes."""
        sides = (self.rows, self.tokens, self.inputs)
        powers = all(n >= 1 and n & (n - 1) == 0 for n in (*sides, self.warps))
        if not (powers and min(sides) >= LEAST and self.warps <= 16 and 1 <= self.stages <= 8):
            raise BadSetting(
                "a tile that no kernel can be made for", got=self, fix="use powers of two from 16"
            )

    @property
    def constants(self) -> dict[str, Any]:
        """The constants of the kernel that it sets."""
        return {
            "TOKENS_FIRST": self.tokens_first,
            "BLOCK_R": self.rows,
            "BLOCK_T": self.tokens,
            "BLOCK_J": self.inputs,
        }

    @property
    def options(self) -> dict[str, int]:
        """What the compiler is told."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def shared_bytes(self, number: Number) -> int:
        """Shared memory for the loads under way."""
        return (self.rows + self.tokens) * self.inputs * self.stages * BYTES_OF[number]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A product: G groups of R rows over J kept inputs each, for T tokens."""

    groups: int
    rows: int
    inputs: int
    tokens: int
    number: Number

    def programs(self, tile: Tile) -> int:
        """How many tiles there are."""
        return self.groups * -(-self.rows // tile.rows) * -(-self.tokens // tile.tokens)


def power_above(n: int) -> int:
    """The least power of two that is not less than ``n``."""
    return 1 << max(0, n - 1).bit_length()


def rows_of_tiles(rows: int) -> tuple[int, ...]:
    """The two largest tiles that divide a group of rows, else the one that it is padded to."""
    whole = tuple(n for n in (_MOST_ROWS, 64, 32, LEAST) if rows % n == 0)
    return whole[:2] or (min(_MOST_ROWS, max(LEAST, power_above(rows))),)


def candidates(problem: Problem) -> tuple[Tile, ...]:
    """The :data:`TILES` worth measuring, at most some two dozen.

    Rows and tokens are near enough to what keeps a GPU busy, steps are such that J fills them, and
    two programs fit into a multiprocessor's shared memory.
    """
    rows = rows_of_tiles(problem.rows)
    return tuple(tile for tile in TILES if tile.rows in rows and _suits(tile, problem))


def _suits(tile: Tile, problem: Problem) -> bool:
    """Whether a tile of the right rows is neither too large nor too small for a product."""
    longest = max(LEAST, power_above(problem.tokens))
    if tile.tokens > longest or (tile.tokens == LEAST and longest > 4 * LEAST):
        return False
    if tile.inputs > max(LEAST, problem.inputs):
        return False
    if tile.tokens > 32 and 8 * problem.programs(tile) < _BUSY:
        return False
    return tile.shared_bytes(problem.number) <= _SHARED_BYTES


def _tile(rows: int, tokens: int, inputs: int, *, stages: int) -> Tile:
    """With the warps that a tile of this size needs, so that no thread holds more than 64 sums.

    Fewer than 4 never: Hopper's tensor-core instruction is of four warps together.
    """
    warps = 8 if rows * tokens >= 64 * 256 else 4
    return Tile(
        rows=rows,
        tokens=tokens,
        inputs=inputs,
        warps=warps,
        stages=stages,
        tokens_first=rows < 64 <= tokens,
    )


# Every tile that is measured for any product.
TILES = tuple(
    _tile(rows, tokens, inputs, stages=3 if inputs == 64 else 5)
    for rows in (_MOST_ROWS, 64, 32, LEAST)
    for tokens in (LEAST, 32, 64, 128, 256)
    for inputs in (LEAST, 32, 64)
)
