"""The axes of a classifier whose order is free: renumbering them does not change its outputs.

    hidden             the residual stream, one order for the whole network
    layer L heads      whole heads: outputs of query, key and value, inputs of attention_output
    layer L queries    within a head, query and key alike: only their products are read
    layer L values     within a head: outputs of value, inputs of attention_output
    layer L neurons    outputs of intermediate and its gate, inputs of output

The matrices on both sides of an axis are renumbered together, so the outputs stay the same. Only
the neighbours of each weight change, and a pattern chooses among neighbours.

X counts the positions of an axis. An order says where each new position comes from:
``new_X = old_X[order_X]``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.architecture import READERS, Role

HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Positions that may change places, and the matrices that lie along them.

    Attributes:
        name: name in reports.
        size: number of positions.
        rows: names of the matrices whose outputs lie along the axis.
        columns: names of the matrices whose inputs lie along the axis.
        segment: number of consecutive positions that a position cannot leave.
        unit: number of consecutive positions that move together.
    """

    name: str
    size: int
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    segment: int
    unit: int = 1

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of all matrices along the axis."""
        return self.rows + self.columns


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AxisOrder:
    """A new order of an axis: ``new_X = old_X[order_X]``."""

    axis: Axis
    order_X: Tensor

    def arranged(self, name: str, array_NK: Tensor) -> Tensor:
        """The array ``[N, K]`` of the matrix ``name`` (weights or scores) in the new order."""
        order_X = self.order_X.to(array_NK.device)
        if name in self.axis.rows:
            array_NK = array_NK[order_X]
        return array_NK[:, order_X] if name in self.axis.columns else array_NK

    def inverse(self) -> "AxisOrder":
        """The order that undoes this one."""
        return AxisOrder(axis=self.axis, order_X=self.order_X.argsort())


def axes_of(encoder: Encoder) -> Iterator[Axis]:
    """All axes whose order is free; whole heads come before what is inside them."""
    yield _hidden(encoder)
    yield from local_axes(encoder)


def local_axes(encoder: Encoder) -> Iterator[Axis]:
    """The axes inside layers, along which only the encoder's own matrices lie."""
    for layer in range(encoder.layers):
        yield from _axes_of_layer(encoder, layer)


def spread(order_U: Tensor, unit: int) -> Tensor:
    """The order of single positions, from the order of U units of ``unit`` positions each."""
    return (order_U[:, None] * unit + torch.arange(unit)).reshape(-1)


def _hidden(encoder: Encoder) -> Axis:
    """The residual stream, which every layer reads and adds to."""
    return Axis(
        name=HIDDEN,
        size=encoder.hidden,
        rows=tuple(m.name for m in encoder.matrices() if m.role in READERS),
        columns=tuple(m.name for m in encoder.matrices() if m.role not in READERS),
        segment=encoder.hidden,
    )


def _axes_of_layer(encoder: Encoder, layer: int) -> Iterator[Axis]:
    """The axes of one layer: heads, positions inside heads, and neurons.

    The order of heads is not free where each has its column in a table of biases by relative
    position, which all layers share. Inside a head, queries and keys cannot move where rotary
    positions rotate each pair of features by an angle of its own.
    """
    of: Mapping[Role, str] = {m.role: m.name for m in encoder.matrices() if m.layer == layer}
    query, key, value = of["query"], of["key"], of["value"]
    reader = (of["attention_output"],)
    H, D = encoder.hidden, encoder.head_size
    at = f"layer {layer}"
    if encoder.relative_positions is None:
        yield Axis(
            name=f"{at} heads", size=H, rows=(query, key, value), columns=reader, segment=H, unit=D
        )
    if not encoder.attention:
        yield Axis(name=f"{at} queries", size=H, rows=(query, key), columns=(), segment=D)
    yield Axis(name=f"{at} values", size=H, rows=(value,), columns=reader, segment=D)
    yield Axis(
        name=f"{at} neurons",
        size=encoder.intermediate,
        rows=tuple(of[role] for role in ("intermediate", "gate") if role in of),
        columns=(of["output"],),
        segment=encoder.intermediate,
    )
