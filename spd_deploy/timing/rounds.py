"""Interleaved rounds: what is compared takes turns, so that a drifting machine drifts for all.

A machine gets slower as it warms up and faster when a neighbour stops. If A ran first and B second,
that would count as a difference between A and B. So A and B run in every round, and the order is
reversed every other round.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def interleave(names: Sequence[Name], rounds: int) -> Iterator[tuple[int, Name]]:
    """The visits of all rounds as ``(round, name)``: each name once a round, A B, B A, A B, ..."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name
