"""Block sparsity: whole blocks of a matrix are zero, equally many in each group of rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spd_deploy.domain.errors import BadPattern
from spd_deploy.domain.patterns.selection import highest, kept_count, refuse_sparsity, shape_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Keep whole blocks of ``rows`` x ``columns``, the same number in every group of rows.

    The balance is what makes it fast: each group of ``rows`` outputs reads equally many inputs,
    so all groups run as one batched product (``exporters.lowering.gathered``).
    """

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = False
    rows: int
    columns: int
    sparsity: float = 0.75

    def __post_init__(self) -> None:
        """Refuse empty blocks and a sparsity outside (0, 1)."""
        if self.rows < 1 or self.columns < 1:
            raise BadPattern(
                "a block needs at least one row and one column",
                got=f"{self.rows}x{self.columns}",
                fix="for example block:64x1",
            )
        refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return f"block:{self.rows}x{self.columns}"

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are zero only together: those of a block."""
        return self.rows, self.columns

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix that the block does not divide."""
        if shape[0] % self.rows or shape[1] % self.columns:
            raise BadPattern(
                f"{self} does not divide the matrix",
                got=f"{shape[0]}x{shape[1]} (outputs x inputs)",
                fix=f"choose R dividing {shape[0]} and C dividing {shape[1]}",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Each group of rows keeps its blocks of highest total score; ties go to earlier ones."""
        score_GU = self.block_scores(score_NK)
        mask_GU = highest(score_GU, kept_count(score_GU.shape[1], sparsity))
        return mask_GU.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)

    def block_scores(self, score_NK: "Tensor") -> "Tensor":
        """Total score of each block, ``[G, U]``: U blocks in each of G groups of rows."""
        self.check(shape_of(score_NK))
        return self._blocks(score_NK).sum((1, 3))

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether every group of rows has at most the promised number of non-zero blocks."""
        if weight_NK.shape[0] % self.rows or weight_NK.shape[1] % self.columns:
            return False
        kept_GU = (self._blocks(weight_NK) != 0).any(3).any(1)
        return bool((kept_GU.sum(1) <= kept_count(kept_GU.shape[1], self.sparsity)).all())

    def _blocks(self, matrix_NK: "Tensor") -> "Tensor":
        """View ``[N, K]`` as ``[groups, rows, blocks, columns]``."""
        N, K = matrix_NK.shape
        return matrix_NK.reshape(N // self.rows, self.rows, K // self.columns, self.columns)
