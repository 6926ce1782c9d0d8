"""The picture: that what it shows is what was measured, and fits on a page."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.lines import Line2D

from spd_deploy.benchmark.breakeven.map_figure import (
    WIDEST_TITLE,
    draw_map,
    heights_of,
    map_figure,
    title_of,
)
from tests.benchmark.breakeven.made_map import made_map


def test_patterns_stand_apart() -> None:
    """Dense is on top; lines of one pattern are one apart, and more lies between two patterns."""
    heights = heights_of(made_map().rows)

    assert next(iter(heights.items())) == ("dense", 0.0)
    for (one, above), (other, below) in pairwise(heights.items()):
        gap = below - above
        assert gap == pytest.approx(1.0) if one.split()[0] == other.split()[0] else gap > 1.0


def test_a_dot_stands_at_its_time() -> None:
    """Each entry is one dot at the milliseconds of its layer, the dashed line at the dense time."""
    found = made_map()
    panel = map_figure(found).axes[1]  # 32 tokens
    dense_ms = 1e3 * 32e-6 * (4 * 64 + 128)

    places = {at(line)[1]: at(line)[0] for line in panel.lines if dot(line)}
    (rule,) = [at(line)[0] for line in panel.lines if not dot(line)]
    heights = heights_of(found.rows)
    assert places[heights["dense"]] == pytest.approx(dense_ms)
    assert places[heights["block:16x1 90 %"]] == pytest.approx(dense_ms / 4)
    assert places[heights["2:4 50 %"]] == pytest.approx(dense_ms)
    assert rule == pytest.approx(dense_ms)


def at(line: Line2D) -> tuple[float, float]:
    """Where a line begins."""
    x, y = np.asarray(line.get_xydata())[0]
    return float(x), float(y)


def dot(line: Line2D) -> bool:
    """Whether it is a dot, and not the rule of the fastest dense form."""
    return line.get_marker() != "None"


def test_the_picture_is_no_tower() -> None:
    """With the default patterns, sparsities and lengths it is wider than it is high."""
    figure = map_figure(made_map())

    assert figure.get_figheight() < figure.get_figwidth()
    assert all(text.get_rotation() == 0 for text in figure.axes[0].get_yticklabels())


def test_the_title_fits_and_names_what_ran_the_products() -> None:
    """A long processor's name and two runtimes take another line, and nothing is cut off."""
    found = made_map()
    runtimes = {"onnxruntime": "1.24.0", "openvino": "2026.4.1"}
    long = replace(found, machine=replace(found.machine, cpu="Test CPU 9999X 64-Core Processor"))

    cells = tuple(replace(cell, runtime="openvino") for cell in found.cells)
    title = title_of(replace(long, runtimes=runtimes, cells=(*found.cells, *cells)))

    assert "onnxruntime 1.24.0 and openvino 2026.4.1" in title.replace("\n", " ")
    assert max(map(len, title.split("\n"))) <= WIDEST_TITLE


@pytest.mark.usefixtures("rendered")
def test_the_same_map_is_the_same_picture() -> None:
    """It is a PNG file, drawn from the map's numbers and from nothing else."""
    picture = draw_map(made_map())

    assert picture.startswith(b"\x89PNG")
    assert picture == draw_map(made_map())
