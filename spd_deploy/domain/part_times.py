"""The times that a latency table is made of: of the parts of a layer, and of whole networks."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures

MEASURE_AGAIN = "measure again with: spd map --structured"
# A larger part that takes up to this much more time costs the same.
SAME_COST = 0.02
# Rounds agree that differ by no more than this.
_AGREE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTimes:
    """Seconds of one part of a layer at some numbers of heads or neurons.

    Attributes:
        kept: numbers of heads or neurons, rising from 0 to all.
        seconds: seconds of the part at each of them; 0 at none, never falling.
    """

    kept: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse numbers that do not rise from 0, and times that fall."""
        rising = all(low < high for low, high in pairwise(self.kept))
        growing = all(a <= b for a, b in pairwise(self.seconds))
        whole = 2 <= len(self.kept) == len(self.seconds)
        if not (whole and rising and growing) or self.kept[0] or self.seconds[0]:
            raise BadReport(
                "the times of a part do not rise from 0 at none", got=self.kept, fix=MEASURE_AGAIN
            )

    def at(self, kept: int) -> float:
        """Seconds at ``kept``, interpolated between the measured numbers.

        Raises:
            BadSetting: fewer than none, or more than all.
        """
        if not 0 <= kept <= self.kept[-1]:
            raise BadSetting(
                f"a part of a layer keeps from 0 to {self.kept[-1]}",
                got=kept,
                fix="use the table of a model of these sizes",
            )
        i = bisect_left(self.kept, kept)
        if self.kept[i] == kept:
            return self.seconds[i]
        low, high = self.kept[i - 1], self.kept[i]
        share = (kept - low) / (high - low)
        return self.seconds[i - 1] + share * (self.seconds[i] - self.seconds[i - 1])

    def worthwhile(self) -> tuple[int, ...]:
        """The measured numbers at which keeping more would cost more; 0 and all are among them.

        A number is left out where the next larger one takes at most :data:`SAME_COST` more.
        """
        steps = zip(self.kept, pairwise(self.seconds), strict=False)
        found = [n for n, (seconds, above) in steps if above > _same(seconds)]
        return tuple(dict.fromkeys((0, *found, self.kept[-1])))


def _same(seconds: float) -> float:
    """The most seconds that count as the same."""
    return seconds * (1 + SAME_COST)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """Seconds of the two parts of a layer."""

    attention: PartTimes
    feed_forward: PartTimes

    def seconds(self, heads: int, neurons: int) -> float:
        """Seconds of a layer that keeps so many of each."""
        return self.attention.at(heads) + self.feed_forward.at(neurons)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeTimes:
    """The times at one shape.

    Attributes:
        base_s: what is left of a network without heads and neurons: embeddings, norms, head.
        inner: each layer but the last.
        last: the last layer, computed for the first token of each row.
    """

    shape: Shape
    base_s: float
    inner: LayerTimes
    last: LayerTimes

    def __post_init__(self) -> None:
        """The base takes some finite time."""
        if not 0 < self.base_s < math.inf:
            raise BadReport("a base that is no duration", got=self.base_s, fix=MEASURE_AGAIN)

    def layer(self, number: int, layers: int) -> LayerTimes:
        """The times of layer ``number`` of so many."""
        return self.last if number == layers - 1 else self.inner

    def seconds(self, structures: Structures) -> float:
        """Predicted seconds of a network that keeps ``structures``."""
        layers = len(structures.heads)
        return self.base_s + sum(
            self.layer(i, layers).seconds(heads, neurons)
            for i, (heads, neurons) in enumerate(structures.layers())
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedStructures:
    """A whole network that was timed; for each shape, the fastest run of each round."""

    structures: Structures
    seconds: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Every time is a duration."""
        if not all(r and all(0 < s < math.inf for s in r) for r in self.seconds):
            raise BadReport("a network with times that are no durations", fix=MEASURE_AGAIN)


def undisturbed(rounds: Sequence[float]) -> float:
    """The seconds of a network: the median of its three fastest rounds.

    Other work on the machine only adds to a round; one round alone may be lucky.
    """
    return median(sorted(rounds)[:3])


def settled(rounds: Sequence[float]) -> bool:
    """Whether there are three rounds, and two of the three fastest agree."""
    fastest = sorted(rounds)[:3]
    agree = any(b <= a * (1 + _AGREE) for a, b in pairwise(fastest))
    return len(fastest) == 3 and agree
