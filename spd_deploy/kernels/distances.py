"""Biases of attention scores by distance, spread over the pairs of a query and a key."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def biases_between(biases_AD: "Tensor", queries: int, keys: int) -> "Tensor":
    """The bias ``[A, Q, K]`` of each pair of the first tokens, copied.

    Args:
        biases_AD: each head's biases for the distances 1 - P to P - 1 of a key from its query,
            where P is at least ``queries`` and ``keys``.
        queries: number of queries, from the first token on.
        keys: number of keys, from the first token on.
    """
    first = middle_of(biases_AD)
    windows_AXK = biases_AD.unfold(1, keys, 1)
    return windows_AXK[:, first - queries + 1 : first + 1].flip(1)


def middle_of(biases_AD: "Tensor") -> int:
    """The place of distance 0."""
    return biases_AD.shape[1] // 2
