"""N:M sparsity, such as the 2:4 of sparse tensor cores."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spd_deploy.domain.errors import BadPattern
from spd_deploy.domain.patterns.selection import highest, shape_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class NM:
    """Keep ``n`` of every ``m`` consecutive inputs of each output row."""

    fixed_sparsity: ClassVar[bool] = True
    structured: ClassVar[bool] = False
    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse patterns that keep nothing or everything."""
        if not 0 < self.n < self.m:
            raise BadPattern(
                "an N:M pattern must keep some weights and drop some",
                got=f"{self.n}:{self.m}",
                fix="use 0 < N < M, for example 2:4",
            )

    def __str__(self) -> str:
        """The command line's spelling."""
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """Share of zeros: fixed by the pattern."""
        return 1 - self.n / self.m

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns that are zero only together: single weights."""
        return 1, 1

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix whose inputs do not split into groups of ``m``."""
        if shape[1] % self.m:
            raise BadPattern(
                f"{self} needs a number of inputs that {self.m} divides",
                got=f"a matrix of {shape[0]}x{shape[1]} (outputs x inputs)",
                fix="choose another pattern, or a model whose sizes it divides",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the ``n`` highest of each group of ``m``, or more of them on the way there.

        Below the final sparsity only the ``m - n`` lowest of each group may go, the lowest of
        the whole matrix first, so that every mask of a rising schedule leads to a valid last one.
        """
        self.check(shape_of(score_NK))
        score_GM = score_NK.reshape(-1, self.m)
        mask_GM = highest(score_GM, self.n)
        drop = round(score_NK.numel() * min(sparsity, self.sparsity))
        candidates = score_NK.numel() - int(mask_GM.sum())
        if drop < candidates:
            safe_GM = score_GM.masked_fill(mask_GM, math.inf)
            mask_GM = highest(safe_GM.reshape(1, -1), score_NK.numel() - drop)
        return mask_GM.reshape(score_NK.shape)

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether every group of ``m`` inputs has at most ``n`` non-zeros."""
        if weight_NK.shape[1] % self.m:
            return False
        kept_G = (weight_NK.reshape(-1, self.m) != 0).sum(1)
        return bool((kept_G <= self.n).all())
