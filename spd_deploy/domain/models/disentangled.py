"""Disentangled attention (He et al. 2021): scores from content and from relative position.

Each layer projects one table of embeddings of relative positions with its own query and key
matrices. To the product of a query and a key are added the query times the projected key of their
distance (c2p), and the key times the projected query of their distance (p2c).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class DisentangledAttention:
    """Which terms a score has, and which row of the table each distance reads.

    Attributes:
        content_to_position: whether there is the term of query and projected key.
        position_to_content: whether there is the term of key and projected query.
        span: half of the rows of the table; row ``span`` is distance 0.
        max_distance: distances from here on share a row.
        in_buckets: whether rows beyond ``span / 2`` widen with the logarithm of the distance;
            otherwise each distance below ``span`` has its own.
        normed: whether a norm is applied to the table.
    """

    content_to_position: bool
    position_to_content: bool
    span: int
    max_distance: int
    in_buckets: bool
    normed: bool

    @property
    def table(self) -> str:
        """The module of the table ``[2 span, H]``, as seen from the base model."""
        return "encoder.rel_embeddings"

    @property
    def norm(self) -> str:
        """The module of the table's norm, as seen from the base model."""
        return "encoder.LayerNorm"

    def scale(self, head_size: int) -> float:
        """The factor of every term of a score."""
        terms = 1 + self.content_to_position + self.position_to_content
        return float((head_size * terms) ** -0.5)

    def row_of(self, distance: int) -> int:
        """The row of a query's position minus a key's."""
        row = self._bucket_of(distance) if self.in_buckets else distance
        return min(max(row + self.span, 0), 2 * self.span - 1)

    def rows_of(self, distances: range) -> Iterator[int]:
        """The row of each distance."""
        return map(self.row_of, distances)

    def _bucket_of(self, distance: int) -> int:
        """The signed bucket of a distance, in fp32 as Transformers computes it."""
        exact, size = self.span // 2, abs(distance)
        if size <= exact:
            return distance
        share = np.log(np.float32(size / exact)) / np.log(
            np.float32((self.max_distance - 1) / exact)
        )
        bucket = int(np.ceil(share * np.float32(exact - 1))) + exact
        return bucket if distance > 0 else -bucket
