"""The result of a search: new orders of axes, and the score that the masks keep with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from spd_deploy.domain.models.architecture import Role
from spd_train.pruning.permutation.axes import AxisOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Share of the total score that the masks keep, before and after, in [0, 1]."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Permutations:
    """The orders that a search found.

    Attributes:
        moves: new orders, to be applied one after another.
        kept: share of the score that is kept, by role, over the matrices that an order can help.
        total: the same over all of these matrices.
        skipped: the reason by name of each axis that was not searched.
        seconds: duration of the search.
    """

    moves: tuple[AxisOrder, ...]
    kept: Mapping[Role, Kept]
    total: Kept
    skipped: Mapping[str, str]
    seconds: float

    def arranged(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arrays ``[N, K]`` by matrix name (scores, masks) in the order of the permuted weights."""
        return arranged_by(arrays, self.moves)


def arranged_by(arrays: Mapping[str, Tensor], moves: Sequence[AxisOrder]) -> dict[str, Tensor]:
    """Arrays ``[N, K]`` by matrix name in the order after all ``moves``."""
    arranged = dict(arrays)
    for move in moves:
        for name in move.axis.matrices:
            if name in arranged:
                arranged[name] = move.arranged(name, arranged[name])
    return arranged
