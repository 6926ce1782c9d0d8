"""Rotary positions: queries and keys rotated by angles that grow with the position.

Cosines and sines are made by operators from the length of the batch, once a run for all layers with
the same angles. A table for all positions would take 4 MB of ModernBERT's file.
"""

import numpy as np

from exporters.onnx.arithmetic.arithmetic import Arithmetic
from exporters.onnx.graph import Graph, Name
from exporters.onnx.layouts.layout import Axes
from spd_deploy.domain.models.layer_attention import LayerAttention


class Rotary:
    """Rotates heads by their positions.

    Args:
        head_size: D, the width of a head.
    """

    def __init__(self, graph: Graph, arithmetic: Arithmetic, head_size: int, axes: Axes) -> None:
        self.g, self.arithmetic, self.size, self.axes = graph, arithmetic, head_size, axes
        self._made: dict[tuple[float, bool], tuple[Name, Name]] = {}

    def rotated(self, x: Name, attention: LayerAttention, *, features_first: bool) -> Name:
        """Heads ``[B, A, S, D]``, or ``[B, A, D, S]`` with ``features_first``, rotated."""
        g, half = self.g, self.size // 2
        cos, sin = self._angles(attention, features_first=features_first)
        axis = 2 if features_first else 3
        a, b = g.once_many("Split", x, g.ints(half, half), outputs=2, axis=axis)
        turned_a = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        turned_b = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
        return g.op("Concat", turned_a, turned_b, axis=axis)

    def _angles(self, attention: LayerAttention, *, features_first: bool) -> tuple[Name, Name]:
        """Cosine and sine ``[S, D / 2]``, or ``[D / 2, S]``, in the precision of the heads."""
        key = (attention.theta, features_first)
        if key not in self._made:
            with self.g.outermost_scope("rotary"):
                self._made[key] = self._make(attention, features_first=features_first)
        return self._made[key]

    def _make(self, attention: LayerAttention, *, features_first: bool) -> tuple[Name, Name]:
        """The operators that make them."""
        g = self.g
        frequency_F = np.array(attention.frequencies(self.size), np.float32)
        place_S = self.axes.places(g)
        if features_first:
            angle = g.op("Mul", g.constant(frequency_F[:, None]), place_S)
        else:
            angle = g.op("Mul", g.reshape(place_S, -1, 1), g.constant(frequency_F))
        cos, sin = (self.arithmetic.cast_activation(g, g.op(op, angle)) for op in ("Cos", "Sin"))
        return cos, sin
