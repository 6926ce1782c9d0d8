"""Labels with an order, such as 1 to 5 stars: a model answers a number, and the nearest is given.

Labels that are all numbers stand at their own values, others at 0, 1, 2, ... A number half-way
between two labels is rounded up.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray


def places_of(labels: Sequence[str]) -> tuple[float, ...]:
    """The number of each label, from the lowest label to the highest."""
    numbers = tuple(map(_number, labels))
    rising = all(a < b for a, b in pairwise(numbers))
    if rising and all(map(math.isfinite, numbers)):
        return numbers
    return tuple(float(i) for i in range(len(labels)))


def nearest(labels: Sequence[str], numbers: ArrayLike) -> NDArray[np.int64]:
    """The position in ``labels`` of the label that is nearest to each number."""
    places = np.array(places_of(labels))
    bounds = (places[:-1] + places[1:]) / 2
    return np.asarray(np.searchsorted(bounds, numbers, side="right"), dtype=np.int64)


def are_numbers(labels: Sequence[str]) -> bool:
    """Whether every label is a finite number."""
    return all(math.isfinite(_number(label)) for label in labels)


def _number(label: str) -> float:
    """The number that a label spells; NaN for a word."""
    try:
        return float(label)
    except ValueError:
        return math.nan
