"""Random pairs of groups: both searches improve many pairs of two groups at once."""

import torch
from torch import Tensor


def random_pairs(groups: int, per_segment: int, generator: torch.Generator) -> Tensor:
    """Disjoint pairs ``[P, 2]`` of the groups, each within one segment of ``per_segment`` groups.

    Where a segment has an odd number of groups, one of them sits out.
    """
    segments = groups // per_segment
    shuffled = torch.rand(segments, per_segment, generator=generator).argsort(1)
    shuffled = shuffled + torch.arange(segments)[:, None] * per_segment
    return shuffled[:, : per_segment // 2 * 2].reshape(-1, 2)
