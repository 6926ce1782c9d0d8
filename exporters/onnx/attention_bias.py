"""Biases of attention scores: masks of padding and windows; in MPNet, biases by position.

The biases of MPNet are a table ``[buckets, heads]`` that all layers share. In the graph it is
feature-major and unrolled, ``[heads, distances]``: each head's biases for all distances of a key
from a query, side by side. They are spread over all pairs of positions by operators on constants,
which every runtime folds when it loads the graph: 12 MB of memory for MPNet-base, and next to
nothing in the file. A run copies the corner of its length, once for all layers, for the heads that
some layer keeps. A layer that keeps fewer heads takes theirs from the copy. Looking up each pair at
each run was measured to cost ONNX Runtime more than all other work on the biases.

Where a layer's tokens see those near by alone, as in ModernBERT, the mask of its window is added to
that of padding once for all layers, since both are the same for every head.

Mask and biases are added one after the other. Their sum, made once for all layers, was measured to
be no faster, and takes the memory of a layer's scores for as long as the graph runs.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.compact import Heads
from exporters.onnx.graph import Graph, Name
from exporters.onnx.layouts.layout import Axes, beyond
from exporters.onnx.local_attention import Chunks

POSITION_BIAS = "position_bias"

# Added to the attention scores of padding: half of the lowest fp32 number, so that adding a score
# does not overflow.
_MASKED_SCORE = float(np.finfo(np.float32).min) / 2


class AttentionBias:
    """Emits the biases, each at its first use.

    Args:
        weights: has the table.
        layers: the heads that each layer keeps.
        axes: the sizes of the batch.
        chunks: how layers with a window split the rows; None where they do not.
    """

    def __init__(
        self,
        graph: Graph,
        weights: ClassifierWeights,
        layers: Iterable[Heads],
        axes: Axes,
        chunks: Chunks | None = None,
    ) -> None:
        self.g = graph
        self.axes = axes
        self.chunks = chunks
        self.heads = tuple(sorted(set().union(*layers)))
        self.positions = weights.encoder.positions
        self.biases_AD = unrolled_biases(weights)
        with graph.scope("mask"):
            self.mask = self._mask()
        self._looked_up: dict[bool, Name] = {}
        self._windows: dict[tuple[int, bool], Name] = {}

    def of(self, heads: Heads, *, first: bool, window: int | None = None) -> Sequence[Name]:
        """The biases of the scores ``[B, A, Q, S]`` of these heads, one after the other.

        With ``first`` the only query is the first token of each row. With a ``window`` tokens
        further away than that are masked; where rows are split, the scores are
        ``[B, A, N, C, keys]``.
        """
        if window is not None:
            return (self._within(window, first=first),)
        if self.biases_AD is None:
            return (self.mask,)
        if first not in self._looked_up:
            look_up = self._from_first if first else self._between_all
            self._looked_up[first] = look_up(self._table())
        biases = self._looked_up[first]
        if heads != self.heads:
            places = self.g.ints(*(self.heads.index(head) for head in heads))
            biases = self.g.once("Gather", biases, places, axis=0)
        return biases, self.mask

    def _mask(self) -> Name:
        """0 for real tokens and a very negative number for padding: ``[B, 1, 1, S]``."""
        from onnx import TensorProto

        g = self.g
        mask = g.op("Cast", g.op("Unsqueeze", self.axes.mask, g.ints(1, 2)), to=TensorProto.FLOAT)
        return g.op("Mul", g.op("Sub", g.scalar(1.0), mask), g.scalar(_MASKED_SCORE))

    def _within(self, window: int, *, first: bool) -> Name:
        """The mask ``[B, 1, Q, S]``, or of split rows, of padding and of what is further away."""
        key = (window, first)
        if key not in self._windows:
            with self.g.outermost_scope("mask"):
                if self.chunks is not None and not first:
                    self._windows[key] = self.chunks.mask(self.mask, self.axes, _MASKED_SCORE)
                    return self._windows[key]
                g, key_S = self.g, self.axes.places(self.g)
                query = g.constant(np.array(0, np.int32)) if first else g.reshape(key_S, -1, 1)
                far = beyond(g, query, key_S, window)
                masked = g.op("Where", far, g.scalar(_MASKED_SCORE), g.scalar(0.0))
                self._windows[key] = g.op("Add", self.mask, masked)
        return self._windows[key]

    def _table(self) -> Name:
        """The biases ``[A, D]`` of the kept heads for all distances."""
        assert self.biases_AD is not None  # noqa: S101 - callers ask only where there are some
        if POSITION_BIAS in self.g.constants:
            return POSITION_BIAS
        return self.g.weight(POSITION_BIAS, self.biases_AD[list(self.heads)])

    def _from_first(self, table_AD: Name) -> Name:
        """The biases from the first token of a row to all of its tokens, ``[A, 1, S]``."""
        g = self.g
        begin = g.ints(self.positions - 1)
        end = g.op("Add", begin, self.axes.sequence)
        return g.op("Unsqueeze", g.op("Slice", table_AD, begin, end, g.ints(1)), g.ints(1))

    def _between_all(self, table_AD: Name) -> Name:
        """The biases from all tokens of a row to all of them, ``[A, S, S]``."""
        g, P = self.g, self.positions
        place_P = np.arange(P, dtype=np.int64)
        query_P1, key_P = g.constant(place_P[:, None]), g.constant(place_P + P - 1)
        pairs_APP = g.op("Gather", table_AD, g.op("Sub", key_P, query_P1), axis=1)
        ends = g.op("Concat", self.axes.sequence, self.axes.sequence, axis=0)
        return g.op("Slice", pairs_APP, g.ints(0, 0), ends, g.ints(1, 2))


def unrolled_biases(weights: ClassifierWeights) -> Array | None:
    """Each head's biases for all distances, ``[A, 2 P - 1]``; None where there are none."""
    encoder = weights.encoder
    if (relative := encoder.relative_positions) is None:
        return None
    table_UA = weights.weight(f"{encoder.base}.{relative.module}")
    return np.ascontiguousarray(table_UA[list(relative.buckets_of(encoder.positions))].T)
