"""The latency table as a value: its laws, its file, and the tables that it refuses to be."""

import json
import re
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.latency_table import (
    EncoderSizes,
    LatencyTable,
    read_latency_table,
    write_latency_table,
)
from spd_deploy.domain.part_times import (
    LayerTimes,
    PartTimes,
    ShapeTimes,
    TimedStructures,
    settled,
    undisturbed,
)
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures

FILES_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"
SIZES = EncoderSizes(layers=3, hidden=64, heads=4, intermediate=128)
HEADS, NEURONS = (0, 1, 2, 4), (0, 16, 32, 128)
WANTED: dict[str, Any] = {
    "machine": "A processor",
    "runtime": "onnxruntime",
    "precision": "fp32",
    "shapes": (Shape(batch=1, seq=32), Shape(batch=2, seq=32)),
    "cores": 2,
    "sizes": SIZES,
}


def part(kept: tuple[int, ...], unit_s: float) -> PartTimes:
    return PartTimes(kept=kept, seconds=tuple(unit_s * n for n in kept))


def layer(head_s: float, neuron_s: float) -> LayerTimes:
    return LayerTimes(attention=part(HEADS, head_s), feed_forward=part(NEURONS, neuron_s))


def table(*scales: float) -> LatencyTable:
    times = tuple(
        ShapeTimes(
            shape=Shape(batch=i + 1, seq=32),
            base_s=2e-3,
            inner=layer(1e-3 * scale, 2e-5),
            last=layer(2e-4, 1e-6),
        )
        for i, scale in enumerate(scales or (1.0, 3.0))
    )
    rounds = tuple((0.01, 0.0101, 0.02) for _ in times)
    dense = Structures(heads=(4,) * 3, neurons=(128,) * 3)
    network = TimedStructures(structures=dense, seconds=rounds)
    return LatencyTable(
        machine="A processor",
        runtime="onnxruntime",
        precision="fp32",
        threads=2,
        sizes=SIZES,
        times=times,
        networks=(network,),
        checks=(network,),
    )


STRUCTURES = st.builds(
    lambda heads, neurons: Structures(heads=tuple(heads), neurons=tuple(neurons)),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
    st.lists(st.integers(0, 128), min_size=3, max_size=3),
)


def test_a_prediction_is_the_base_and_every_layers_parts() -> None:
    """The seconds at one shape are the sum, the last layer by its own times."""
    found = table(1.0).seconds(Structures(heads=(1, 4, 2), neurons=(0, 16, 128)))

    expected = 2e-3 + (1e-3 + 0) + (4e-3 + 16 * 2e-5) + (2 * 2e-4 + 128e-6)
    assert found == pytest.approx(expected)


def test_between_measured_numbers_it_is_a_straight_line() -> None:
    """Three heads, which were not measured, take the mean of two and four."""
    times = PartTimes(kept=(0, 2, 4), seconds=(0.0, 1.0, 3.0))

    assert [times.at(n) for n in range(5)] == [0.0, 0.5, 1.0, 2.0, 3.0]


@given(STRUCTURES, STRUCTURES)
def test_more_is_never_faster(one: Structures, other: Structures) -> None:
    """A network that keeps at least as much in every layer takes at least as long."""
    more = Structures(
        heads=tuple(map(max, one.heads, other.heads)),
        neurons=tuple(map(max, one.neurons, other.neurons)),
    )

    assert table().seconds(more) >= table().seconds(one) * (1 - 1e-12)


@given(STRUCTURES)
def test_the_share_never_promises_too_much(structures: Structures) -> None:
    """1 / share is at most the speed-up; with one shape they are equal."""
    assert 1 / table().share(structures) <= table().speedup(structures) * (1 + 1e-9)
    assert 1 / table(2.0).share(structures) == pytest.approx(table(2.0).speedup(structures))


def test_dense_has_a_speedup_of_one_and_nothing_is_faster_than_none() -> None:
    """The dense model's share is 1, and the fastest speed-up is that of the base alone."""
    found = table()

    assert found.speedup(found.dense) == pytest.approx(1)
    assert found.share(found.dense) == pytest.approx(1)
    every = product(product((0, 4), repeat=3), product((0, 128), repeat=3))
    speedups = [found.speedup(Structures(heads=h, neurons=n)) for h, n in every]
    assert max(speedups) == pytest.approx(found.fastest_speedup)


def test_steps_that_cost_the_same_are_one_step() -> None:
    """Of numbers that take the same time, only the largest is worthwhile."""
    times = PartTimes(kept=(0, 16, 32, 64, 96), seconds=(0.0, 1.0, 1.0, 1.01, 2.0))

    assert times.worthwhile() == (0, 64, 96)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Written and read again, it is the same value."""
    write_latency_table(tmp_path / "table.json", table())

    assert read_latency_table(tmp_path / "table.json") == table()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 9}, "schema"),
        ({"speed": 1}, "unknown field"),
        ({"threads": "2"}, "damaged"),
        ({"times": []}, "do not fit"),
        ({"sizes": {**asdict(SIZES), "heads": 8}}, "do not fit"),
        ({"runtime": "tensorrt"}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """An edited field is named, and what to do about it."""
    file = tmp_path / "table.json"
    file.write_text(json.dumps({**table().to_json(), **change}))

    with pytest.raises(BadReport, match=said) as caught:
        read_latency_table(file)

    assert "spd map --structured" in caught.value.fix


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A table that is not there is an error of ours that says how to make one."""
    with pytest.raises(BadReport, match="cannot read"):
        read_latency_table(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("machine", "Another processor"),
        ("runtime", "openvino"),
        ("precision", "int8"),
        ("shapes", (Shape(batch=3, seq=77),)),
        ("sizes", replace(SIZES, layers=2)),
    ],
)
def test_a_table_of_something_else_is_refused(what: str, other: object) -> None:
    """The error names what differs; only another machine may be allowed."""
    table().refuse_misfit(**WANTED)
    with pytest.raises(BadReport, match="another") as caught:
        table().refuse_misfit(**{**WANTED, what: other})
    wanted = "3x77" if what == "shapes" else str(other)
    assert wanted in str(caught.value.got)
    if what == "machine":
        table().refuse_misfit(**{**WANTED, what: other}, any_machine=True)
    else:
        with pytest.raises(BadReport):
            table().refuse_misfit(**{**WANTED, what: other}, any_machine=True)


def test_more_threads_than_there_are_are_refused() -> None:
    """A table of fewer threads is of a smaller server; one of more says nothing of this process."""
    threads = table().threads
    table().refuse_misfit(**{**WANTED, "cores": threads + 6})
    with pytest.raises(BadReport, match="more threads") as caught:
        table().refuse_misfit(**{**WANTED, "cores": threads - 1})
    assert str(threads) in str(caught.value.got)
    table().refuse_misfit(**{**WANTED, "cores": threads - 1}, any_machine=True)


def test_structures_of_another_model_are_refused() -> None:
    """Another number of layers, and more heads than there are, have no prediction."""
    with pytest.raises(BadSetting, match="3 layers"):
        table().seconds(Structures(heads=(1,), neurons=(1,)))
    with pytest.raises(BadSetting, match="0 to 4"):
        table().seconds(Structures(heads=(5, 1, 1), neurons=(1, 1, 1)))


@pytest.mark.parametrize(
    ("kept", "seconds"),
    [((0, 1), (0.0, -1.0)), ((1, 2), (0.0, 1.0)), ((0, 2, 1), (0.0, 1.0, 2.0)), ((0,), (0.0,))],
)
def test_times_of_no_part_are_refused(kept: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    """Numbers rise from none, and times do not fall."""
    with pytest.raises(BadReport):
        PartTimes(kept=kept, seconds=seconds)


def test_one_lucky_round_does_not_count() -> None:
    """The time is that of the three fastest rounds' middle; they settle where two agree."""
    assert undisturbed((2.9, 2.2, 2.92, 7.0)) == 2.9
    assert settled((2.9, 2.2, 2.92, 7.0))
    assert not settled((2.9, 2.2, 7.0))
    assert not settled((2.9, 2.9))


def test_the_documented_table_is_a_table() -> None:
    """The example in the documentation has every key, and predicts the time of its network."""
    (example,) = re.findall(r"```json\n(.*?)```", FILES_PAGE.read_text(), re.DOTALL)

    table = LatencyTable.from_json(json.loads(example))

    (dense,) = table.networks
    assert dense.structures == table.dense
    assert table.seconds(table.dense) == pytest.approx(undisturbed(dense.seconds[0]), rel=0.02)
    assert max(table.errors()) < 0.02
