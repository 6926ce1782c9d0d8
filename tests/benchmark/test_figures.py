"""The figures of the documentation show the newest committed comparisons."""

import pytest

from benchmarks.figures import FIGURES, IMAGES, numbers_of


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_the_committed_reports(name: str) -> None:
    """Its file holds the numbers that the reports give now."""
    precision, _ = FIGURES[name]
    numbers = numbers_of(precision)
    assert "STS-B" in numbers
    assert numbers in (IMAGES / name).read_text(encoding="utf-8")
