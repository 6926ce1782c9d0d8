"""Biases of attention scores by relative position, in buckets of distances, as in T5 and MPNet."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RelativePositions:
    """A table ``[buckets, heads]`` that all layers share; a score gets the bias of its bucket.

    Half of the buckets is for keys before the query or at it, the other half for keys after it.
    Half of these are for one distance each. The others widen with the distance, up to
    ``max_distance``; the last one holds everything beyond.

    Attributes:
        module: the table's module, as seen from the base model.
    """

    module: str
    buckets: int
    max_distance: int

    def bucket_of(self, distance: int) -> int:
        """The bucket of a key's position minus the query's.

        The rule in whole numbers: it is exact where Transformers takes logarithms in fp32.
        """
        side = self.buckets // 2
        exact = side // 2
        steps, size = side - exact, abs(distance)
        bucket: int = min(size, exact) + sum(
            size**steps * exact**step >= exact**steps * self.max_distance**step
            for step in range(1, steps)
        )
        return bucket + (side if distance > 0 else 0)

    def buckets_of(self, positions: int) -> Iterator[int]:
        """The bucket of each distance from ``1 - positions`` to ``positions - 1``."""
        return map(self.bucket_of, range(1 - positions, positions))
