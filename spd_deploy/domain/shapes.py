"""Shapes of batches, and times measured at them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.text import Batch


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Shape:
    """How many rows of how many tokens one run takes; all tokens are real, none is padding."""

    batch: int
    seq: int

    def __post_init__(self) -> None:
        """At least one row and one token."""
        if self.batch < 1 or self.seq < 1:
            raise BadReport("a shape without tokens", got=self, fix="use sizes of at least 1")

    def __str__(self) -> str:
        """Rows x tokens, such as ``8x128``."""
        return f"{self.batch}x{self.seq}"

    @property
    def tokens(self) -> int:
        """Tokens in one run."""
        return self.batch * self.seq

    @classmethod
    def grid(cls, batches: tuple[int, ...], seqs: tuple[int, ...]) -> tuple[Self, ...]:
        """Every batch size with every length, each once, smallest first."""
        return tuple(sorted({cls(batch=batch, seq=seq) for batch in batches for seq in seqs}))


def refuse_too_long(shapes: Iterable[Shape], positions: int) -> None:
    """Refuse shapes with more tokens than a model has positions.

    Raises:
        BadSetting: there is one.
    """
    longest = max(shape.seq for shape in shapes)
    if longest > positions:
        raise BadSetting(
            f"the model has positions for {positions} tokens",
            got=f"sequences of {longest}",
            fix=f"use sequences of {positions} tokens or less",
        )


def random_batch(shape: Shape, vocabulary: int, random: np.random.Generator) -> Batch:
    """Token ids drawn evenly from the vocabulary, of one segment, with nothing masked."""
    size = (shape.batch, shape.seq)
    return Batch(
        ids_BS=random.integers(vocabulary, size=size, dtype=np.int64),
        mask_BS=np.ones(size, np.int64),
        types_BS=np.zeros(size, np.int64),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """How long one matrix, or a whole network, takes at a shape: dense, and as it was chosen."""

    batch: int
    seq: int
    dense_s: float
    chosen_s: float

    def __post_init__(self) -> None:
        """Both took some finite time, at a shape that has tokens."""
        Shape(batch=self.batch, seq=self.seq)
        if not (0 < self.dense_s < math.inf and 0 < self.chosen_s < math.inf):
            raise BadReport("a time that is no duration", got=self, fix="measure again")

    @property
    def gain(self) -> float:
        """How many times as fast as dense."""
        return self.dense_s / self.chosen_s


def mean_gain(gains: Iterable[float]) -> float:
    """The geometric mean: twice as fast here and half as fast there is no gain."""
    logs = [math.log(gain) for gain in gains]
    return math.exp(sum(logs) / len(logs))


def spelled_gains(measured: Sequence[Measured]) -> str:
    """The gain at each shape, such as ``1x32 1.8x, 8x128 2.9x``."""
    return ", ".join(f"{Shape(batch=one.batch, seq=one.seq)} {one.gain:.1f}x" for one in measured)
