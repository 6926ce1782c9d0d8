"""Disentangled attention as graph operators: what positions add to the scores of a layer.

The table of relative positions is projected when the graph is made (``exporters.position_tables``).
Its columns are spread over the distances by an operator on constants, which every runtime folds
when it loads the graph. A run takes the 2 S distances of its length, and multiplies them with all
queries: ``[S, 2 S]`` for each head, in which the score of a pair is one column further to the left
in each row. Read with rows that are one shorter, all of a distance's scores stand below each other:

    a b c d          a b c       columns S - 1 and further are skipped first, and the
    e f g h    as    d e f       first S of each shorter row are kept
    i j k l          g h i

So two copies of memory take the place of a lookup of each pair, which Transformers' graph has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.compact import Heads
from exporters.onnx.arithmetic.arithmetic import Arithmetic
from exporters.onnx.graph import Graph, Name
from exporters.onnx.layouts.layout import Axes
from exporters.onnx.operators import product
from exporters.position_tables import PositionTables
from spd_deploy.domain.models.disentangled import DisentangledAttention


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPositions:
    """Emits what positions add to the scores of one layer, in fp32.

    Attributes:
        positions: the longest text, P.
        axes: the sizes of the batch.
    """

    g: Graph
    arithmetic: Arithmetic
    attention: DisentangledAttention
    tables: PositionTables
    heads: int
    positions: int
    axes: Axes

    def scores(self, q4: Name, k4: Name, features_first: bool) -> Sequence[Name]:
        """The terms that are added to the scores ``[B, A, Q, S]``.

        Args:
            q4: queries ``[B, A, D, Q]`` with ``features_first``, else ``[B, A, Q, D]``.
            k4: keys ``[B, A, D, S]``.
            features_first: the axes of the queries.
        """
        found = []
        with self.g.scope("positions"):
            if self.tables.key_ADU is not None:
                found.append(self._of_queries(q4, self.tables.key_ADU, features_first))
            if self.tables.query_ADU is not None:
                found.append(self._of_keys(k4, self.tables.query_ADU))
        return found

    def _of_queries(self, q4: Name, table_ADU: Array, features_first: bool) -> Name:
        """The queries times the projected keys of their distances."""
        P, g = self.positions, self.g
        if self.axes.first:  # the distance of key k is -k
            near = self._columns(table_ADU, range(0, -P, -1), g.ints(0), self.axes.sequence)
            return self._float32(product(g, q4, near, transpose_a=features_first))
        near = self._columns(table_ADU, range(P - 1, -P - 1, -1), *self._middle())
        return self._float32(self._shifted(product(g, q4, near, transpose_a=features_first)))

    def _of_keys(self, k4: Name, table_ADU: Array) -> Name:
        """The keys times the projected queries of their distances."""
        P, g = self.positions, self.g
        if self.axes.first:
            near = self._columns(table_ADU, range(0, -P, -1), g.ints(0), self.axes.sequence)
            parts = self._float32(g.op("Mul", k4, near))
            return g.op("ReduceSum", parts, g.ints(2), keepdims=1)
        near = self._columns(table_ADU, range(1 - P, P + 1), *self._middle())
        by_key = self._shifted(product(g, k4, near, transpose_a=True))
        return self._float32(g.transpose(by_key, 0, 1, 3, 2))

    def _columns(self, table_ADU: Array, distances: range, start: Name, end: Name) -> Name:
        """The columns of these distances of a query from its key, from ``start`` to ``end``."""
        g = self.g
        stored = self.arithmetic.cast_activation(g, g.constant(table_ADU[None]))
        rows = np.array(list(self.attention.rows_of(distances)), np.int64)
        spread = g.op("Gather", stored, g.constant(rows), axis=3)
        return g.op("Slice", spread, start, end, g.ints(3))

    def _middle(self) -> tuple[Name, Name]:
        """The first and the last of the 2 S distances of a text of S tokens."""
        g, whole = self.g, self.g.ints(self.positions)
        return g.once("Sub", whole, self.axes.sequence), g.once("Add", whole, self.axes.sequence)

    def _shifted(self, scores: Name) -> Name:
        """Of ``[B, A, S, 2 S]`` by distance, those ``[B, A, S, S]`` of all pairs."""
        g, S = self.g, self.axes.sequence
        flat = g.reshape(scores, 0, self.heads, -1)
        flat = g.op("Slice", flat, g.once("Sub", S, g.ints(1)), g.ints(-1), g.ints(2))
        shape = g.once("Concat", g.ints(0, self.heads), S, g.ints(-1), axis=0)
        return g.op("Slice", g.op("Reshape", flat, shape), g.ints(0), S, g.ints(3))

    def _float32(self, scores: Name) -> Name:
        """The scores in fp32, in which they are summed."""
        return self.arithmetic.cast_float32(self.g, scores)


def layer_scores(
    g: Graph,
    arithmetic: Arithmetic,
    weights: ClassifierWeights,
    axes: Axes,
    *,
    layer: int,
    heads: Heads,
) -> Callable[[Name, Name, bool], Sequence[Name]] | None:
    """A function that adds the terms of positions; None where attention is not disentangled."""
    encoder = weights.encoder
    tables = PositionTables.of(weights, layer, heads)
    if tables is None or encoder.disentangled is None:
        return None
    return LayerPositions(
        g=g,
        arithmetic=arithmetic,
        attention=encoder.disentangled,
        tables=tables,
        heads=len(heads),
        positions=encoder.positions,
        axes=axes,
    ).scores
