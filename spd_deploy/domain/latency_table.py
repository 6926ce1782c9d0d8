"""The latency table of a machine: seconds of each part of an encoder layer, by what it keeps.

A network's latency is predicted as ``base_s`` plus, for each layer, the seconds of its attention
with h heads and of its feed-forward part with n neurons (ZipLM, Kurtic et al. 2023, section 3.2).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from spd_deploy.domain.structures import Structures


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTimes:
    """Seconds of one part of a layer at some numbers of heads or neurons.

    Attributes:
        kept: numbers of heads or neurons, rising from 0 to all.
        seconds: seconds of the part at each of them, for all shapes of the table together
            (geometric mean over the shapes), 0 at none.
    """

    kept: tuple[int, ...]
    seconds: tuple[float, ...]

    def at(self, kept: int) -> float:
        """Seconds at ``kept``, interpolated between the measured numbers."""
        i = bisect_left(self.kept, kept)
        if self.kept[i] == kept:
            return self.seconds[i]
        low, high = self.kept[i - 1], self.kept[i]
        share = (kept - low) / (high - low)
        return self.seconds[i - 1] + share * (self.seconds[i] - self.seconds[i - 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyTable:
    """Seconds of one run of an encoder's parts at one shape, in one runtime and precision."""

    attention: PartTimes
    feed_forward: PartTimes
    base_s: float
    layers: int

    def seconds(self, structures: Structures) -> float:
        """Predicted seconds of a network that keeps ``structures``."""
        return self.base_s + sum(
            self.attention.at(heads) + self.feed_forward.at(neurons)
            for heads, neurons in structures.layers()
        )
