"""The shapes an engine is built for, and which of them a batch is run in.

A bucket is a number of rows and tokens. Each is an optimisation profile of its own whose smallest,
best and largest shape are the bucket itself: kernels are timed at the shape that runs, and a CUDA
graph, which has one shape for good, can hold it. A smaller batch is padded; the rows of a larger
one go through in turns. A text that is longer than every bucket is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.shapes import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Rows ``start`` to ``stop`` of a batch, run in the bucket of this number."""

    bucket: int
    start: int
    stop: int


def buckets_for(
    batches: tuple[int, ...], seqs: tuple[int, ...], *, longest: int
) -> tuple[Shape, ...]:
    """Every batch size at every length up to ``longest``, and at ``longest`` itself.

    The longest text that the model reads must be served whatever lengths were asked for; lengths
    beyond it no text has.
    """
    return Shape.grid(batches, tuple({min(seq, longest) for seq in (*seqs, longest)}))


def turns_of(rows: int, tokens: int, buckets: Sequence[Shape]) -> tuple[Turn, ...]:
    """The buckets that a batch goes through: the smallest that holds it, if one does.

    Otherwise the one of most rows again and again, and for the rest the smallest that holds that.

    Raises:
        EngineFailed: no bucket has so many tokens.
    """
    wide = [i for i, bucket in enumerate(buckets) if bucket.seq >= tokens]
    if not wide:
        raise EngineFailed(
            "the engine was built for no rows of so many tokens",
            got=f"{tokens} tokens; it has {', '.join(map(str, buckets))} (rows x tokens)",
            fix="send shorter texts, or export again with a longer --seq",
        )
    return tuple(_turns(rows, wide, buckets))


def _turns(rows: int, wide: Sequence[int], buckets: Sequence[Shape]) -> Iterator[Turn]:
    """The turns of so many rows in buckets that are wide enough."""
    largest = max(wide, key=lambda i: (buckets[i].batch, -buckets[i].seq))
    start = 0
    while start < rows:
        left = rows - start
        holding = [i for i in wide if buckets[i].batch >= left]
        taken = min(holding, key=lambda i: (buckets[i].tokens, buckets[i].seq), default=largest)
        stop = min(rows, start + buckets[taken].batch)
        yield Turn(bucket=taken, start=start, stop=stop)
        start = stop
