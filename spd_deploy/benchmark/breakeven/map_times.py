"""Times of the products of one size of matrix, on a CPU or a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spd_deploy.benchmark.breakeven.product_kernels import ProductKey


@dataclass(frozen=True, kw_only=True, slots=True)
class MapTimes:
    """Times by product and number of tokens.

    Attributes:
        seconds: the median of each round.
        reasons: why a product does not run here.
    """

    seconds: Mapping[tuple[ProductKey, int], tuple[float, ...]]
    reasons: Mapping[tuple[ProductKey, int], str] = field(default_factory=dict)
