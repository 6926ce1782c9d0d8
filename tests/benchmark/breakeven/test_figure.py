"""The picture: where the line runs, and that what it shows is what was measured."""

from dataclasses import replace
from itertools import pairwise, product

import pytest

from spd_deploy.benchmark.breakeven.figure import (
    WIDEST_TITLE,
    draw_map,
    fence_of,
    heights_of,
    title_of,
)
from tests.benchmark.breakeven.made import made_map


@pytest.mark.parametrize("bits", range(64))
def test_the_line_parts_what_loses_from_all_else(bits: int) -> None:
    """Over all fields of 2 x 3, an edge is drawn where just one of its two sides loses."""
    losing = [[bool(bits >> (3 * y + x) & 1) for x in range(3)] for y in range(2)]

    def loses(x: int, y: int) -> bool:
        return 0 <= x < 3 and 0 <= y < 2 and losing[y][x]

    upright = [
        ((x, y), (x, y + 1))
        for x, y in product(range(4), range(2))
        if loses(x - 1, y) != loses(x, y)
    ]
    level = [
        ((x, y), (x + 1, y))
        for x, y in product(range(3), range(3))
        if loses(x, y - 1) != loses(x, y)
    ]

    assert sorted(fence_of(losing)) == sorted(upright + level)


def test_patterns_stand_apart() -> None:
    """Rows of one pattern are one apart, and more lies between two patterns."""
    rows = made_map().rows
    heights = list(heights_of(rows).values())

    for (above, below), (first, second) in zip(pairwise(heights), pairwise(rows), strict=True):
        gap = below - above
        assert gap == pytest.approx(1.0) if first.pattern == second.pattern else gap > 1.0
    assert heights[0] == 0


def test_the_title_fits_and_names_what_ran_the_products() -> None:
    """A long processor's name and two runtimes take another line, and nothing is cut off."""
    found = made_map()
    runtimes = {"onnxruntime": "1.24.0", "openvino": "2026.4.1"}
    long = replace(found, machine=replace(found.machine, cpu="Test CPU 9999X 64-Core Processor"))

    cells = tuple(replace(cell, runtime="openvino") for cell in found.cells)
    title = title_of(replace(long, runtimes=runtimes, cells=(*found.cells, *cells)))

    assert "onnxruntime 1.24.0 and openvino 2026.4.1" in title.replace("\n", " ")
    assert max(map(len, title.split("\n"))) <= WIDEST_TITLE


def test_the_same_map_is_the_same_picture() -> None:
    """It is a PNG file, drawn from the map's numbers and from nothing else."""
    picture = draw_map(made_map())

    assert picture.startswith(b"\x89PNG")
    assert picture == draw_map(made_map())
