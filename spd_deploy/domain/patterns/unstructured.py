"""Unstructured sparsity: any weight of a matrix may be zero."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spd_deploy.domain.patterns.selection import highest, kept_count, refuse_sparsity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Unstructured:
    """Any weight may be zero."""

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = False
    sparsity: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a sparsity outside (0, 1)."""
        refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return "unstructured"

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are zero only together: single weights."""
        return 1, 1

    def check(self, shape: tuple[int, int]) -> None:
        """Any shape will do."""

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the highest scores of the matrix; a tie goes to the earlier weight."""
        kept = kept_count(score_NK.numel(), sparsity)
        return highest(score_NK.reshape(1, -1), kept).reshape(score_NK.shape)

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether at most the promised share of weights is non-zero."""
        kept = kept_count(weight_NK.numel(), self.sparsity)
        return int(weight_NK.count_nonzero()) <= kept
