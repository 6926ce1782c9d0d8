"""The names of the ways to run a matrix, as ``--lowering`` takes them."""

from typing import Literal

# The whole matrix dense; what remains of it dense; what remains of it gathered.
LoweringName = Literal["dense", "compact", "gathered"]
