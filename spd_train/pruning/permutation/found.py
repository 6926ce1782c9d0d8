"""What a search for orders found: the orders themselves, and what they are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from spd_deploy.domain.layers import Role
from spd_train.pruning.permutation.axes import Move


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Share of the score that the masks keep, before and after."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Permutations:
    """The orders found, and what they are worth.

    Attributes:
        moves: new orders, to be made one after another.
        kept: by role, over the matrices whose pattern an order can help.
        total: over all of those matrices.
        skipped: why, by name of an axis that was left alone.
        seconds: how long the search took.
    """

    moves: tuple[Move, ...]
    kept: Mapping[Role, Kept]
    total: Kept
    skipped: Mapping[str, str]
    seconds: float

    def arranged(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arrays ``[N, K]`` by matrix name (scores, masks) in the order of the folded weights."""
        return arranged_by(arrays, self.moves)


def arranged_by(arrays: Mapping[str, Tensor], moves: Sequence[Move]) -> dict[str, Tensor]:
    """Arrays by matrix name after the moves."""
    arranged = dict(arrays)
    for move in moves:
        for name in move.axis.matrices:
            if name in arranged:
                arranged[name] = move.arranged(name, arranged[name])
    return arranged
