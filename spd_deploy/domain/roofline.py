"""The least work that a classifier's encoder can do on a batch, and the least time that it takes.

What is counted is what no implementation can leave out: the kept multiplications of each matrix,
the two products of attention, and each of their inputs read once and their outputs written once.
Layer norms, softmax and activations can be fused into the neighbours, embeddings are gathers, and
the classifier's head is small: they are not counted, so the least time is a bound, and a share of
it that was reached is if anything too low.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.shapes import Shape

Bound = Literal["arithmetic", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Floating-point operations, and bytes that go through the device's memory."""

    flops: float
    moved_bytes: float

    def __add__(self, other: Self) -> "Work":
        """Both, one after the other."""
        return Work(
            flops=self.flops + other.flops, moved_bytes=self.moved_bytes + other.moved_bytes
        )

    def least_s(self, *, flops_per_s: float, bytes_per_s: float) -> tuple[float, Bound]:
        """Seconds below which no run can be at these rates, and which of them says so."""
        arithmetic_s, memory_s = self.flops / flops_per_s, self.moved_bytes / bytes_per_s
        if memory_s > arithmetic_s:
            return memory_s, "memory"
        return arithmetic_s, "arithmetic"


def encoder_work(
    encoder: Encoder,
    shape: Shape,
    *,
    shares: Mapping[str, float] | None = None,
    number_bytes: int = 2,
    first_only: bool = False,
) -> Work:
    """The least work of a batch.

    Args:
        encoder: the sizes.
        shape: of the batch.
        shares: multiplications left of a matrix, by its name; those that are not named keep all.
        number_bytes: of one number of weights and activations.
        first_only: whether the last layer goes on with the first token of each row alone, as the
            graphs do that this project exports.
    """
    kept, total = shares or {}, Work(flops=0.0, moved_bytes=0.0)
    for matrix in encoder.matrices():
        first = first_only and matrix.layer == encoder.layers - 1
        narrow = first and matrix.role not in ("key", "value")
        tokens, share = shape.batch if narrow else shape.tokens, kept.get(matrix.name, 1.0)
        total += Work(
            flops=matrix.flops(tokens, density=share),
            moved_bytes=matrix.moved_bytes(tokens, density=share, number_bytes=number_bytes),
        )
    for layer in range(encoder.layers):
        queries = 1 if first_only and layer == encoder.layers - 1 else shape.seq
        total += Work(
            flops=encoder.attention_flops(shape.batch, queries, shape.seq),
            moved_bytes=encoder.attention_bytes(shape.batch, queries, shape.seq, number_bytes),
        )
    return total
