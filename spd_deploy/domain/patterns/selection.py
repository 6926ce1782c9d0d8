"""Which weights or units of a matrix have the highest scores, and how many of them stay."""

from typing import TYPE_CHECKING

from spd_deploy.domain.errors import BadPattern

if TYPE_CHECKING:
    from torch import Tensor


def refuse_sparsity(sparsity: float) -> None:
    """A sparsity is a share strictly between 0 and 1; NaN is none."""
    if not 0 < sparsity < 1:
        raise BadPattern(
            "sparsity must lie strictly between 0 and 1",
            got=f"{sparsity:g}",
            fix="for example --sparsity 0.75 for three zeros in four",
        )


def kept_count(count: int, sparsity: float) -> int:
    """How many of ``count`` stay at ``sparsity``: the nearest whole number, at least one."""
    return max(1, min(count, round(count * (1 - sparsity))))


def shape_of(matrix_NK: "Tensor") -> tuple[int, int]:
    """The two dimensions of a matrix."""
    N, K = matrix_NK.shape
    return N, K


def highest(score_GU: "Tensor", kept: int) -> "Tensor":
    """Mask of the ``kept`` highest scores in each row; of equal ones, the earlier."""
    if score_GU.isnan().any():
        raise BadPattern(
            "scores hold NaN", fix="training diverged: lower --learning-rate and start again"
        )
    U = score_GU.shape[1]
    if kept >= U:
        return score_GU == score_GU
    threshold_G1 = score_GU.kthvalue(U - kept + 1, dim=1, keepdim=True).values
    above_GU = score_GU > threshold_G1
    tied_GU = score_GU == threshold_G1
    room_G1 = kept - above_GU.sum(1, keepdim=True)
    return above_GU | (tied_GU & (tied_GU.cumsum(1) <= room_G1))
