"""The tile of the kernel that keeps its weights in shared memory, and where it fits.

It holds the weights of a program's rows and the inputs of some tiles of tokens. Where a group kept
too many inputs for the GPU's shared memory, the product runs by the kernel that streams its
weights: BERT-base's second feed-forward product at 75 % keeps 768 inputs, which take 192 KB in
blocks of 128 rows.
"""

from dataclasses import dataclass
from typing import Any

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.number_types import NUMBER_TYPES, FloatType
from spd_deploy.kernels.tiles import ProblemSize, rows_of_tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class StationaryTile:
    """The sizes of one program's part of a product, and its launch options.

    Attributes:
        rows: outputs of a program, all of one group.
        tokens: tokens of one step of a program.
        splits: programs that share the tokens of the same rows.
        warps: groups of 32 threads.
        stages: tiles of tokens in flight at the same time.
    """

    rows: int
    tokens: int
    splits: int
    warps: int = 4
    stages: int = 2

    def __post_init__(self) -> None:
        """Refuse sizes that are no powers of two, and sides that tensor cores do not take."""
        powers = all(n >= 1 and n & (n - 1) == 0 for n in (self.rows, self.tokens, self.warps))
        if not (powers and min(self.rows, self.tokens) >= 16 and self.splits >= 1 <= self.stages):
            raise BadSetting(
                "no kernel can be compiled for this tile", got=self, fix="use powers of two from 16"
            )

    @property
    def constants(self) -> dict[str, Any]:
        """The kernel's ``tl.constexpr`` arguments, but for J."""
        return {
            "BLOCK_R": self.rows,
            "BLOCK_T": self.tokens,
            "SPLITS": self.splits,
            "STAGES": self.stages,
        }

    def shared_bytes(self, inputs: int, number: FloatType, *, residual: bool) -> int:
        """The most shared memory in bytes that a compiled kernel takes.

        It holds the weights, the inputs of the tiles in flight and their residuals; where there is
        no residual, the outputs on their way to wide stores.
        """
        outputs = self.rows * self.tokens * (self.stages if residual else 1)
        numbers = (self.rows + self.tokens * self.stages) * inputs + outputs
        return numbers * NUMBER_TYPES[number].bytes


def stationary_tile(
    problem: ProblemSize, *, shared_bytes: int, multiprocessors: int, residual: bool = False
) -> StationaryTile | None:
    """The widest tile that fits into a GPU's shared memory; None where none does.

    Args:
        problem: the size of the product.
        shared_bytes: shared memory that one program may have.
        multiprocessors: of the GPU; so many programs run at the same time.
        residual: whether a residual is added.
    """
    rows = rows_of_tiles(problem.rows)[0]
    row_tiles = problem.groups * -(-problem.rows // rows)
    for tokens, stages in ((128, 3), (128, 2), (64, 3), (64, 2)):
        token_tiles = -(-problem.tokens // tokens)
        tile = StationaryTile(
            rows=rows,
            tokens=tokens,
            splits=max(1, min(token_tiles, multiprocessors // row_tiles)),
            warps=8 if rows * tokens > 64 * 128 else 4,
            stages=stages,
        )
        needed = tile.shared_bytes(problem.inputs, problem.dtype, residual=residual)
        if needed <= shared_bytes:
            return tile
    return None
