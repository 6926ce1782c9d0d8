"""A latency table from networks: what is timed, what the fit makes of it, and a real one."""

from random import Random

import pytest

from exporters.autotune.fit_latency import (
    fit_shape,
    head_counts,
    networks_to_time,
    neuron_counts,
)
from spd_deploy.domain.latency_table import EncoderSizes
from spd_deploy.domain.part_times import LayerTimes, PartTimes, ShapeTimes
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures

SHAPE = Shape(batch=2, seq=16)
SIZES = EncoderSizes(layers=4, hidden=96, heads=6, intermediate=256)


def made_times(sizes: EncoderSizes) -> ShapeTimes:
    """Times of parts with uneven steps, at every number that networks are timed with."""
    heads, neurons = head_counts(sizes.heads), neuron_counts(sizes.intermediate)
    few = (0, heads[1], heads[len(heads) // 2], sizes.heads)
    random = Random(1)

    def part(kept: tuple[int, ...], step_s: float) -> PartTimes:
        seconds = [0.0]
        for _ in kept[1:]:
            seconds.append(seconds[-1] + step_s * random.choice((0.0, 1.0, 2.0)))
        return PartTimes(kept=kept, seconds=tuple(seconds))

    middle = min(neurons, key=lambda n: abs(n - sizes.intermediate / 2))
    last_neurons = tuple(sorted({0, neurons[1], middle, sizes.intermediate}))
    return ShapeTimes(
        shape=SHAPE,
        base_s=5e-3,
        inner=LayerTimes(attention=part(heads, 1e-3), feed_forward=part(neurons, 5e-4)),
        last=LayerTimes(
            attention=part(tuple(sorted(set(few))), 3e-4), feed_forward=part(last_neurons, 1e-5)
        ),
    )


def test_additive_times_are_found_again() -> None:
    """From networks whose times are sums of parts, the fit gives those parts."""
    made = made_times(SIZES)
    networks = networks_to_time(SIZES)

    found = fit_shape(SHAPE, networks, [made.seconds(network) for network in networks])

    random = Random(0)
    for _ in range(20):
        drawn = Structures(
            heads=(*(random.choice(made.inner.attention.kept) for _ in range(3)), 3),
            neurons=(*(random.choice(made.inner.feed_forward.kept) for _ in range(3)), 128),
        )
        assert found.seconds(drawn) == pytest.approx(made.seconds(drawn), rel=1e-6)


def test_noise_makes_no_part_faster_by_keeping_more() -> None:
    """With a tenth of noise the parts still rise, and the sums stay within it."""
    made, random = made_times(SIZES), Random(2)
    networks = networks_to_time(SIZES)
    noisy = [made.seconds(network) * random.uniform(0.95, 1.05) for network in networks]

    found = fit_shape(SHAPE, networks, noisy)  # PartTimes refuses times that fall

    for network in networks:
        assert found.seconds(network) == pytest.approx(made.seconds(network), rel=0.1)


def test_a_model_of_one_layer_has_a_table() -> None:
    """The one layer is the last, computed for the first token, and its times are found."""
    sizes = EncoderSizes(layers=1, hidden=64, heads=4, intermediate=128)
    networks = networks_to_time(sizes)
    seconds = [1e-3 + 1e-4 * n.heads[0] + 1e-6 * n.neurons[0] for n in networks]

    found = fit_shape(SHAPE, networks, seconds)

    for network, expected in zip(networks, seconds, strict=True):
        assert found.seconds(network) == pytest.approx(expected)


@pytest.mark.parametrize("heads", [1, 2, 12, 16, 40])
@pytest.mark.parametrize("neurons", [1, 40, 128, 1536, 4096])
def test_the_networks_have_none_half_and_all(heads: int, neurons: int) -> None:
    """Counts go from 0 to all, for any sizes, and no network is timed twice."""
    sizes = EncoderSizes(layers=2, hidden=8 * heads, heads=heads, intermediate=neurons)

    networks = networks_to_time(sizes)

    for counts, most in ((head_counts(heads), heads), (neuron_counts(neurons), neurons)):
        assert counts == tuple(sorted(set(counts)))
        assert (counts[0], counts[-1]) == (0, most)
    assert len(set(networks)) == len(networks) < 50
    assert {(0, 0), (heads, neurons)} <= {(n.heads[0], n.neurons[0]) for n in networks}
