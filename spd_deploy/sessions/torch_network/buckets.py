"""The shapes that CUDA graphs are captured for: any batch runs in the least that holds it.

A graph replays one shape. Lengths come in steps of 16 to 64 tokens, rows in steps of a third or
less, so padding costs little and the graphs of a server's traffic are a few dozen. All lengths are
multiples of 16, which lets the kernels load 16 bytes at a time, but for a model whose table of
positions ends in between.
"""

from dataclasses import dataclass

from spd_deploy.domain.errors import EngineFailed

# Lengths up to the first number come in steps of the second.
_STEPS = ((64, 16), (256, 32), (1 << 30, 64))


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Bucket:
    """Rows and tokens of a captured graph."""

    batch: int
    seq: int

    def __str__(self) -> str:
        """Rows x tokens, such as ``32x128``."""
        return f"{self.batch}x{self.seq}"


def bucket_for(batch: int, seq: int, *, positions: int) -> Bucket:
    """The least bucket that holds a batch.

    Raises:
        EngineFailed: rows longer than the model has positions for.
    """
    if seq > positions:
        raise EngineFailed(
            "a batch is longer than the model has positions for",
            got=f"{seq} tokens, {positions} positions",
            fix="cut the texts with the artefact's own tokenizer",
        )
    step = next(step for most, step in _STEPS if seq <= most)
    return Bucket(batch=rows_for(batch), seq=min(positions, -(-seq // step) * step))


def rows_for(batch: int) -> int:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, 32, and so on: powers of two, and half-way between them."""
    power = 1 << max(0, batch - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and batch <= between else power
