"""Shapes, settings and series refuse what measures nothing."""

import pytest

from spd_deploy.benchmark.formatting import megabytes, milliseconds, percent, ratio
from spd_deploy.benchmark.records import BenchmarkSettings, Series, Shape
from spd_deploy.domain.errors import BadReport, BadSetting

SHAPE = Shape(batch=1, seq=8)


def test_a_grid_holds_each_shape_once() -> None:
    """Sizes that come twice are measured once, smallest first."""
    assert [str(shape) for shape in Shape.grid((8, 1, 1), (32, 16))] == [
        "1x16", "1x32", "8x16", "8x32",
    ]  # fmt: skip


@pytest.mark.parametrize(("batch", "seq"), [(0, 8), (1, 0), (-1, 8)])
def test_a_shape_has_tokens(batch: int, seq: int) -> None:
    """No rows or no tokens are refused."""
    with pytest.raises(BadReport, match="without tokens"):
        Shape(batch=batch, seq=seq)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shapes": ()},
        {"rounds": 1},
        {"seconds": 0.0},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"warmup_runs": 0},
        {"min_runs": 0},
        {"min_runs": 9, "max_runs": 8},
    ],
    ids=str,
)
def test_settings_measure_something(wrong: dict[str, object]) -> None:
    """Settings without a shape, two rounds or some time are refused."""
    with pytest.raises(BadSetting, match="measure nothing"):
        BenchmarkSettings(**{"shapes": (SHAPE,), **wrong})  # type: ignore[arg-type]


def test_the_largest_shape_has_the_most_tokens() -> None:
    """Memory is weighed where it is needed most."""
    settings = BenchmarkSettings(shapes=(Shape(batch=9, seq=1), Shape(batch=2, seq=8), SHAPE))

    assert settings.largest == Shape(batch=2, seq=8)
    assert settings.series.seconds * settings.rounds == pytest.approx(settings.seconds)


@pytest.mark.parametrize("seconds", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_a_series_holds_durations(seconds: tuple[float, ...]) -> None:
    """No samples, or samples that are no durations, are refused."""
    with pytest.raises(BadReport, match="missing or no durations"):
        Series(arm="a", shape=SHAPE, round=0, warmup_s=(0.1,), seconds=seconds)


def test_numbers_are_spelled_with_the_digits_that_matter() -> None:
    """About three figures each."""
    assert [milliseconds(s) for s in (5.12e-4, 1.234e-3, 0.0123, 1.204)] == [
        "0.512", "1.23", "12.3", "1204",
    ]  # fmt: skip
    assert [megabytes(b) for b in (300_000, 438_000_000)] == ["0.3", "438"]
    assert (percent(0.104), percent(0.104, 1)) == ("10 %", "10.4 %")
    assert (ratio(1.434), ratio(2.34)) == ("1.43", "2.3")
