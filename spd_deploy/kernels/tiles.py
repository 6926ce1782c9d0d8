"""How a block-sparse product is cut into tiles: what is possible, and what is taken unmeasured.

Which tile is fastest depends on the GPU and on how many inputs a group kept, so tiles are measured
where they run (``tuning.py``) and remembered (``remembered.py``). Here are the pure parts: the
class of shapes that shares a tile, the candidates, and the default of an unmeasured product.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
    activation: str = "none"
    residual: bool = False

    @property
    def name(self) -> str:
        """The class of shapes that shares a tile: tokens count to the next power of two."""
        end = f"{self.activation}{'+residual' if self.residual else ''}"
        sizes = f"{self.groups}x{self.rows}x{self.inputs} {power_above(self.tokens)} tokens"
        return f"{self.number} {sizes} {end}"

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


def default_tile(problem: Problem) -> Tile:
    """What an unmeasured product is run with.

    Whole groups up to 128 rows; 128 tokens, and half of that until there is a program for every
    multiprocessor; steps of 32 inputs with four under way (two in fp32, which is twice as large),
    which is right for the fewest inputs.
    """
    rows = rows_of_tiles(problem.rows)[0]
    stages = 2 if problem.number == "fp32" else 4
    tokens = min(128, max(LEAST, power_above(problem.tokens)))
    tile = _tile(rows, tokens, 32, stages=stages)
    while problem.programs(tile) < _BUSY and tokens > 32:
        tokens //= 2
        tile = _tile(rows, tokens, 32, stages=stages)
    return tile


def candidates(problem: Problem) -> tuple[Tile, ...]:
    """Tiles worth measuring, the default first: at most some two dozen."""
    return tuple(dict.fromkeys((default_tile(problem), *_candidates(problem))))


def _candidates(problem: Problem) -> Iterator[Tile]:
    """Rows and tokens that are near enough to what keeps a GPU busy, in steps that J fills."""
    longest = max(LEAST, power_above(problem.tokens))
    for rows in rows_of_tiles(problem.rows):
        for tokens in (LEAST, 32, 64, 128, 256):
            if tokens > longest or (tokens == LEAST and longest > 4 * LEAST):
                continue
            for inputs in (LEAST, 32, 64):
                if inputs > max(LEAST, problem.inputs):
                    continue
                tile = _tile(rows, tokens, inputs, stages=3 if inputs == 64 else 5)
                if tokens > 32 and 8 * problem.programs(tile) < _BUSY:
                    continue
                if tile.shared_bytes(problem.number) <= _SHARED_BYTES:
                    yield tile


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
