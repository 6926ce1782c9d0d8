"""Which networks a latency table is measured on, and the table's times from theirs.

Parts are never timed alone: a part's time is what whole networks take with more or less of it. In
each network all layers but the last are alike. With half of the neurons everywhere the heads vary,
with half of the heads the neurons; then the last layer, above empty ones, where its small times
show. All, none, and one kind alone come on top.

The times are a non-negative least-squares fit. Each step of a part, such as from 4 heads to 5, has
seconds of 0 or more, so a part never gets faster by keeping more, whatever the noise says. Errors
count relative to the network's own time.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.latency_table import EncoderSizes
from spd_deploy.domain.part_times import LayerTimes, PartTimes, ShapeTimes
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures

# The smallest numbers of neurons, at which the width of a vector and of a tile show.
_FEW_NEURONS = (16, 32, 64, 128)
_NEURON_STEPS = 12
_MAX_HEADS = 16
_NEURON_MULTIPLE = 32
_CHECKS = 4


def head_counts(heads: int) -> tuple[int, ...]:
    """The numbers of heads to time: each, or of many heads an even choice."""
    return tuple(sorted({round(n) for n in np.linspace(0, heads, min(heads, _MAX_HEADS) + 1)}))


def neuron_counts(neurons: int) -> tuple[int, ...]:
    """The numbers of neurons to time: none, a few, then multiples of about a twelfth, and all."""
    multiples = max(1, round(neurons / _NEURON_STEPS / _NEURON_MULTIPLE))
    step = multiples * _NEURON_MULTIPLE
    counts = {0, *_FEW_NEURONS, *range(step, neurons, step), neurons}
    return tuple(sorted(n for n in counts if n <= neurons))


def networks_to_time(sizes: EncoderSizes) -> tuple[Structures, ...]:
    """The networks, each once."""
    H, N = sizes.heads, sizes.intermediate
    heads, neurons = head_counts(H), neuron_counts(N)
    half_H, half_N = heads[len(heads) // 2], _nearest(neurons, N / 2)
    few_H, few_N = sorted({0, heads[1], half_H, H}), sorted({0, neurons[1], half_N, N})

    def network(h: int, n: int, last_h: int, last_n: int) -> Structures:
        inner = sizes.layers - 1
        return Structures(heads=(h,) * inner + (last_h,), neurons=(n,) * inner + (last_n,))

    networks = [network(h, n, h, n) for h in (0, H) for n in (0, N)]
    networks += [network(h, half_N, half_H, half_N) for h in heads]
    networks += [network(half_H, n, half_H, half_N) for n in neurons]
    networks += [network(0, 0, h, half_N) for h in few_H]
    networks += [network(0, 0, half_H, n) for n in few_N]
    return tuple(dict.fromkeys(networks))


def networks_to_check(sizes: EncoderSizes) -> tuple[Structures, ...]:
    """Networks of unlike layers, some of them empty: drawn, but always the same ones."""
    random = Random(0)

    def drawn(most: int) -> tuple[int, ...]:
        return tuple(random.choice((0, random.randint(1, most))) for _ in range(sizes.layers))

    return tuple(
        Structures(heads=drawn(sizes.heads), neurons=drawn(sizes.intermediate))
        for _ in range(_CHECKS)
    )


def _nearest(counts: Sequence[int], wanted: float) -> int:
    """The number that is nearest to the one wanted."""
    return min(counts, key=lambda n: abs(n - wanted))


def fit_shape(shape: Shape, networks: Sequence[Structures], seconds: Sequence[float]) -> ShapeTimes:
    """The times of the parts at one shape, from those of whole networks.

    A part has times at the numbers that some network keeps of it.
    """
    from scipy.optimize import nnls

    inner, last = slice(0, -1), slice(-1, None)
    if len(networks[0].heads) == 1:
        inner = last  # the one layer is the last, and stands for the others
    parts = [
        _Part([network.heads[inner] for network in networks]),
        _Part([network.neurons[inner] for network in networks]),
        _Part([network.heads[last] for network in networks]),
        _Part([network.neurons[last] for network in networks]),
    ]
    if inner is last:
        parts = parts[:2]
    seconds_n = np.asarray(seconds)
    design = np.hstack([np.ones((len(networks), 1)), *(part.steps for part in parts)])
    found, _ = nnls(design / seconds_n[:, None], np.ones(len(networks)))
    ends = np.cumsum([1, *(part.steps.shape[1] for part in parts)])
    times = [part.times(found[a:b]) for part, (a, b) in zip(parts, pairwise(ends), strict=True)]
    times = [*times, *times][:4]
    return ShapeTimes(
        shape=shape,
        base_s=float(found[0]),
        inner=LayerTimes(attention=times[0], feed_forward=times[1]),
        last=LayerTimes(attention=times[2], feed_forward=times[3]),
    )


class _Part:
    """One part of some layers: the numbers kept in some network, and what steps each takes."""

    def __init__(self, kept: Sequence[Sequence[int]]) -> None:
        self.kept = tuple(sorted({0, *(n for layers in kept for n in layers)}))
        uppers = self.kept[1:]
        self.steps: NDArray[np.float64] = np.array(
            [[sum(n >= upper for n in layers) for upper in uppers] for layers in kept], float
        ).reshape(len(kept), len(uppers))

    def times(self, steps_s: NDArray[np.float64]) -> PartTimes:
        """The part's times, from the seconds of each step."""
        return PartTimes(kept=self.kept, seconds=(0.0, *map(float, np.cumsum(steps_s))))
