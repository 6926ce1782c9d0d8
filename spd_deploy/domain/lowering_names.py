"""The names of the ways to run a matrix, as ``--lowering`` takes them."""

from collections.abc import Container
from typing import Literal

# The whole matrix dense; what remains of it dense; what remains of it gathered.
LoweringName = Literal["dense", "compact", "gathered"]


def ungathered_of(names: Container[LoweringName]) -> LoweringName:
    """The best lowering that does not gather: ``compact`` where there is one, else dense."""
    return "compact" if "compact" in names else "dense"
