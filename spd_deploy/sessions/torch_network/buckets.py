"""The shapes (buckets) that CUDA graphs are captured for; a batch runs in the smallest that fits.

A CUDA graph replays one shape. Lengths come in steps of 16 to 64 tokens, and rows in steps of a
third or less. Padding therefore costs little, and a server's traffic needs a few dozen graphs.
Lengths are multiples of 16, so that kernels load 16 bytes at a time. The exception is the longest
length of a model whose number of positions is not a multiple of 16.
"""

from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.shapes import Shape

# Lengths up to the first number come in steps of the second.
_STEPS = ((64, 16), (256, 32), (1 << 30, 64))


def bucket_for(batch: int, seq: int, *, positions: int) -> Shape:
    """The smallest bucket that holds a batch of ``batch`` rows and ``seq`` tokens.

    Raises:
        EngineFailed: ``seq`` is more than the model's ``positions``.
    """
    if seq > positions:
        raise EngineFailed(
            "a batch has more tokens than the model has positions",
            got=f"{seq} tokens, {positions} positions",
            fix="cut the texts with the artefact's own tokenizer",
        )
    step = next(step for most, step in _STEPS if seq <= most)
    return Shape(batch=rows_for(batch), seq=min(positions, -(-seq // step) * step))


def buckets_within(*, max_rows: int, max_seq: int) -> tuple[Shape, ...]:
    """The shapes that fill a bucket, of batches of at most so many rows and tokens a row.

    The largest number of rows and the longest row are among them, even where they fill none.
    """
    seqs = {bucket_for(1, seq, positions=max_seq).seq for seq in range(1, max_seq + 1)}
    rows = {min(max_rows, rows_for(batch)) for batch in range(1, max_rows + 1)}
    return Shape.grid(tuple(rows), tuple(seqs))


def rows_for(batch: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ..: powers of two and half-way between them."""
    power = 1 << max(0, batch - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and batch <= between else power
