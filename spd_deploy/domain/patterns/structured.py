"""Structured sparsity: whole attention heads and feed-forward neurons are zero."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from spd_deploy.domain.errors import BadPattern
from spd_deploy.domain.patterns.selection import highest, kept_count, refuse_sparsity, shape_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Structured:
    """Keep whole slices of ``width`` rows (``axis`` 0) or columns (``axis`` 1).

    A slice is one attention head's share of a matrix, or one feed-forward neuron's. Which slices
    of which matrices stand or fall together, the encoder knows (``domain.encoder``); on the
    command line the pattern has neither axis nor width. A sparsity of 1 removes all slices of one
    matrix; no model has it as a whole.
    """

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = True
    sparsity: float = 0.5
    axis: int = 0
    width: int = 1

    def __post_init__(self) -> None:
        """Refuse a sparsity outside (0, 1]."""
        if self.sparsity != 1:
            refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return "structured"

    def on(self, *, axis: int, width: int) -> Self:
        """This pattern for a matrix whose slices lie along ``axis``."""
        return replace(self, axis=axis, width=width)

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are zero only together: those of a slice, along its axis."""
        return (self.width, 1) if self.axis == 0 else (1, self.width)

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix that does not split into slices."""
        if shape[self.axis] % self.width:
            raise BadPattern(
                f"slices of {self.width} do not divide the matrix",
                got=f"{shape[0]}x{shape[1]} (outputs x inputs)",
                fix="use a model whose hidden size its number of heads divides",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the slices of highest total score."""
        return self.spread(self.keep(self.slice_scores(score_NK), sparsity), shape_of(score_NK))

    def slice_scores(self, score_NK: "Tensor") -> "Tensor":
        """Total score of each slice, ``[U]``; those of coupled matrices may be added."""
        self.check(shape_of(score_NK))
        return score_NK.sum(1 - self.axis).reshape(-1, self.width).sum(1)

    def keep(self, score_U: "Tensor", sparsity: float) -> "Tensor":
        """Which of U slices stay: those of highest score, at least one below a sparsity of 1."""
        if sparsity == 1:
            return score_U != score_U
        return highest(score_U[None], kept_count(len(score_U), sparsity))[0]

    def kept(self, count: int) -> int:
        """How many of ``count`` slices stay: at least one below a sparsity of 1."""
        return 0 if self.sparsity == 1 else kept_count(count, self.sparsity)

    def spread(self, keep_U: "Tensor", shape: tuple[int, int]) -> "Tensor":
        """The mask of a matrix whose slices ``keep_U`` stay."""
        lines = keep_U.repeat_interleave(self.width)
        return (lines[:, None] if self.axis == 0 else lines[None, :]).expand(shape).clone()

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether at most the promised number of slices has non-zeros."""
        if weight_NK.shape[self.axis] % self.width:
            return False
        alive_U = (weight_NK != 0).any(1 - self.axis).reshape(-1, self.width).any(1)
        return int(alive_U.sum()) <= self.kept(len(alive_U))
