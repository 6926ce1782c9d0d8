"""The shapes an engine is built for, and which of them a batch is run in.

A bucket is a number of rows and tokens. It is an optimization profile whose min, opt and max shape
are the bucket itself. TensorRT then times kernels at the shape that runs, and a CUDA graph, whose
shape is fixed, can hold it. A smaller batch is padded. A batch of more rows is split into
sub-batches. A text that is longer than every bucket is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.shapes import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class SubBatch:
    """Rows ``start`` to ``stop`` of a batch, which run in the bucket of this index."""

    bucket: int
    start: int
    stop: int


def buckets_for(
    batches: tuple[int, ...], seqs: tuple[int, ...], *, longest: int
) -> tuple[Shape, ...]:
    """Every batch size at every length up to ``longest``, and at ``longest`` itself.

    ``longest`` is the model's longest input. It is added so that every text can run, and longer
    lengths are dropped because no text has them.
    """
    return Shape.grid(batches, tuple({min(seq, longest) for seq in (*seqs, longest)}))


def sub_batches_of(rows: int, tokens: int, buckets: Sequence[Shape]) -> tuple[SubBatch, ...]:
    """Split a batch into sub-batches: one in the smallest bucket that holds it, if any does.

    Otherwise the bucket with most rows runs repeatedly, and the smallest that holds the rest last.

    Raises:
        EngineFailed: no bucket has so many tokens.
    """
    wide = [i for i, bucket in enumerate(buckets) if bucket.seq >= tokens]
    if not wide:
        raise EngineFailed(
            "the engine was not built for texts of so many tokens",
            got=f"{tokens} tokens; it has {', '.join(map(str, buckets))} (rows x tokens)",
            fix="send shorter texts, or export again with a longer --seq",
        )
    return tuple(_sub_batches(rows, wide, buckets))


def _sub_batches(rows: int, wide: Sequence[int], buckets: Sequence[Shape]) -> Iterator[SubBatch]:
    """The sub-batches of ``rows`` rows in the buckets ``wide``, which hold the tokens."""
    largest = max(wide, key=lambda i: (buckets[i].batch, -buckets[i].seq))
    start = 0
    while start < rows:
        left = rows - start
        holding = [i for i in wide if buckets[i].batch >= left]
        taken = min(holding, key=lambda i: (buckets[i].tokens, buckets[i].seq), default=largest)
        stop = min(rows, start + buckets[taken].batch)
        yield SubBatch(bucket=taken, start=start, stop=stop)
        start = stop
