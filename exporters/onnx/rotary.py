"""Rotary positions: queries and keys rotated by angles that grow with the position.

Cosines and sines are made once a run for all layers with the same angles. A table for all positions
would take 4 MB of ModernBERT's file. So there are two small ones, of every 64th position and of the
first 64, and the cosine and sine of the sum of two angles are made of theirs.

An angle itself is in no operator: the product of a position and a frequency has more digits than
the types that runtimes round to. OpenVINO in bf16 was wrong by a radian at position 300.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from exporters.onnx.arithmetic.arithmetic import Arithmetic, Array
from exporters.onnx.graph import Graph, Name
from exporters.onnx.layouts.layout import Axes
from spd_deploy.domain.models.layer_attention import LayerAttention

_FINE = 64


class Rotary:
    """Rotates heads by their positions.

    Args:
        head_size: D, the width of a head.
        positions: the longest text, P.
    """

    def __init__(
        self, graph: Graph, arithmetic: Arithmetic, head_size: int, positions: int, axes: Axes
    ) -> None:
        self.g, self.arithmetic, self.axes = graph, arithmetic, axes
        self.size, self.positions = head_size, positions
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
        """The operators that make them: each position is the sum of a coarse and a fine one."""
        g, axis = self.g, self.g.ints(1 if features_first else 0)
        coarse, fine = np.arange(0, self.positions, _FINE), np.arange(_FINE)
        count = g.op("Div", g.op("Add", self.axes.sequence, g.ints(_FINE - 1)), g.ints(_FINE))
        cos_a, sin_a = (
            g.op("Slice", g.constant(table), g.ints(0), count, axis)
            for table in self._tables(coarse[:, None], attention, features_first=features_first)
        )
        cos_b, sin_b = (
            g.constant(table)
            for table in self._tables(fine[None, :], attention, features_first=features_first)
        )
        cos = g.op("Sub", g.op("Mul", cos_a, cos_b), g.op("Mul", sin_a, sin_b))
        sin = g.op("Add", g.op("Mul", sin_a, cos_b), g.op("Mul", cos_a, sin_b))
        return (
            self._of_rows(cos, features_first=features_first),
            self._of_rows(sin, features_first=features_first),
        )

    def _tables(
        self, places_PQ: NDArray[np.int64], attention: LayerAttention, *, features_first: bool
    ) -> Iterator[Array]:
        """Cosine and sine at positions, ``[P, Q, D / 2]``, or with features first, in fp32."""
        angle_PQF = places_PQ[:, :, None] * np.array(attention.frequencies(self.size))
        angle = angle_PQF.transpose(2, 0, 1) if features_first else angle_PQF
        for function in (np.cos, np.sin):
            yield np.asarray(function(angle), np.float32)

    def _of_rows(self, table: Name, *, features_first: bool) -> Name:
        """The positions of both tables side by side, as many as a row has."""
        g, half = self.g, self.size // 2
        flat = g.reshape(table, *((half, -1) if features_first else (-1, half)))
        axis = g.ints(1 if features_first else 0)
        cut = g.op("Slice", flat, g.ints(0), self.axes.sequence, axis)
        return self.arithmetic.cast_activation(g, cut)
