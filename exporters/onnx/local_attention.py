"""Attention of tokens to those near by, in chunks: work that grows with the length, not its square.

A token of a local layer sees the tokens within a window (ModernBERT: 64 to each side, in two of
three layers). Rows are split into chunks of one window. The queries of a chunk meet the keys of
their own chunk and of its two neighbours; a mask hides those beyond the window. All chunks of all
heads are one batched product. Longformer (Beltagy et al. 2020, section 3.2) works in the same way.

A row of at most :data:`CHUNKED_ABOVE` windows is one chunk without neighbours: its scores are few,
and to copy keys together would take longer than the products that it saves. The graph decides by
the length of each batch. A model that reads no longer rows gets a graph without chunks.

Rows are padded to whole chunks once, before the first layer. The first and the last chunk are each
other's neighbours, so that no empty ones are needed; the mask hides them.
"""

from dataclasses import dataclass, replace

import numpy as np

from exporters.classifier_weights import ClassifierWeights
from exporters.onnx.graph import Graph, Name, Target
from exporters.onnx.layouts.layout import INT32, Axes, beyond

# In windows. Measured at ModernBERT-base's size: above it chunks are faster in ONNX Runtime, and as
# fast in OpenVINO.
CHUNKED_ABOVE = 8
_LAST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """How the rows of a batch are split into N chunks. Sizes are one-element vectors.

    Attributes:
        window: the largest distance of a token that is seen.
        size: tokens of a chunk, C: a window, or the whole of a short row.
        beside: tokens of each neighbour that a chunk meets: a window, or 0 for a short row.
    """

    g: Graph
    window: int
    size: Name
    beside: Name

    def of_columns(self, x4: Name) -> Name:
        """``[B, A, D, S]`` as ``[B, A, N, D, C]``."""
        split = self.g.reshape(x4, 0, 0, 0, -1, self.size)
        return self.g.transpose(split, 0, 1, 3, 2, 4)

    def of_rows(self, x4: Name, width: int) -> Name:
        """``[B, A, S, D]`` of this width D as ``[B, A, N, C, D]``."""
        return self.g.reshape(x4, 0, 0, -1, self.size, width)

    def with_neighbours(self, x5: Name, axis: int) -> Name:
        """Each chunk between the end of the one before it and the beginning of the one behind it.

        Args:
            x5: chunks, side by side along axis 2.
            axis: that of the tokens in a chunk; it grows by twice ``beside``.
        """
        g = self.g
        begin = g.once("Sub", self.size, self.beside)
        ends = g.op("Slice", x5, begin, self.size, g.ints(axis))
        beginnings = g.op("Slice", x5, g.ints(0), self.beside, g.ints(axis))
        return g.op("Concat", self._rolled(ends, -1), x5, self._rolled(beginnings, 1), axis=axis)

    def mask(self, mask_B11S: Name, axes: Axes, masked: float) -> Name:
        """The biases of the scores ``[B, 1, N, C, C + 2 beside]``.

        Args:
            mask_B11S: 0 for tokens, ``masked`` for padding.
            axes: the sizes of the batch.
            masked: hides a score.
        """
        g = self.g
        row_NC = g.reshape(axes.places(g), -1, self.size)
        query_NC1 = g.op("Unsqueeze", row_NC, g.ints(2))
        begin_N11 = g.op("Slice", query_NC1, g.ints(0), g.ints(1), g.ints(1))
        key_N1W = g.op("Add", begin_N11, self._places())
        before = g.op("Less", key_N1W, g.constant(np.array(0, np.int32)))
        behind = g.op("Not", g.op("Less", key_N1W, g.op("Cast", axes.sequence, to=INT32)))
        far = beyond(g, query_NC1, key_N1W, self.window)
        outside = g.op("Or", far, g.op("Or", before, behind))
        hidden_NCW = g.op("Where", outside, g.scalar(masked), g.scalar(0.0))
        split = g.reshape(mask_B11S, 0, 1, -1, 1, self.size)
        both = g.op("Add", self.with_neighbours(split, 4), hidden_NCW)
        return g.op("Max", both, g.scalar(masked))

    def padded(self, x_TH: Name, axes: Axes, width: int) -> tuple[Name, Axes]:
        """Activations ``[T, width]`` of rows that end with padding, and the sizes of the rows."""
        g = self.g
        padding = g.op("Mod", g.op("Neg", axes.sequence), self.size)
        rows = g.reshape(x_TH, axes.batch, axes.sequence, width)
        rows = g.op("Concat", rows, self._first(rows, padding), axis=1)
        hidden = g.op("Mul", self._first(axes.mask, padding), g.ints(0))
        longer = replace(
            axes,
            sequence=g.op("Add", axes.sequence, padding),
            mask=g.op("Concat", axes.mask, hidden, axis=1),
        )
        return g.reshape(rows, -1, width), longer

    def _first(self, x: Name, count: Name) -> Name:
        """The first tokens of each row."""
        return self.g.op("Slice", x, self.g.ints(0), count, self.g.ints(1))

    def _rolled(self, x5: Name, by: int) -> Name:
        """Parts of chunks, moved to the next chunk (1) or the one before (-1), around the end."""
        g, axis = self.g, self.g.ints(2)
        at = g.ints(by)
        front = g.op("Slice", x5, at, g.ints(_LAST), axis)
        return g.op("Concat", front, g.op("Slice", x5, g.ints(0), at, axis), axis=2)

    def _places(self) -> Name:
        """Where the keys of a chunk are, from its beginning, ``[C + 2 beside]`` in int32."""
        g = self.g
        begin, end = g.op("Neg", self.beside), g.op("Add", self.size, self.beside)
        places = g.op("Range", *(g.op("Squeeze", one) for one in (begin, end, g.ints(1))))
        return g.op("Cast", places, to=INT32)


def chunks_of(g: Graph, weights: ClassifierWeights, axes: Axes) -> Chunks | None:
    """How local layers split the rows; None where no row is long enough to be split.

    TensorRT has kernels of its own for attention with a mask, and gets the mask of the window.
    """
    windows = {one.window for one in weights.encoder.attention if one.window is not None}
    if not windows or g.target is Target.TENSORRT:
        return None
    (window,) = windows
    if weights.max_tokens <= CHUNKED_ABOVE * window:
        return None
    long = g.op("Greater", axes.sequence, g.ints(CHUNKED_ABOVE * window))
    return Chunks(
        g=g,
        window=window,
        size=g.op("Where", long, g.ints(window), axes.sequence),
        beside=g.op("Where", long, g.ints(window), g.ints(0)),
    )
