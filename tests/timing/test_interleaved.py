"""The loop that times, under a clock that only the models move."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.host_clock import TimingSettings
from spd_deploy.timing.interleaved import Run, time_interleaved

SMALL, LARGE = Shape(batch=1, seq=4), Shape(batch=2, seq=8)
US = 1000
SPEEDS = {"a": 2.0, "b": 3.0}


class House:
    """A clock, and the order in which models were opened and closed."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.runs = 0
        self.log: list[str] = []

    def clock(self) -> int:
        """The time, which stands still unless a model runs."""
        return self.now_ns

    @contextmanager
    def opened(self, name: str, us_per_token: int) -> Iterator[Run]:
        """A model; its first two runs at a shape are a hundred times as slow."""
        self.log.append(f"open {name}")
        seen: dict[Shape, int] = {}

        def run(shape: Shape) -> None:
            """Move the clock."""
            seen[shape] = seen.get(shape, 0) + 1
            self.runs += 1
            self.now_ns += us_per_token * shape.tokens * US * (100 if seen[shape] <= 2 else 1)

        yield run
        self.log.append(f"close {name}")


def timed(house: House, timing: TimingSettings) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Two models, of 10 and 20 microseconds a token."""
    openers = {"a": lambda: house.opened("a", 10), "b": lambda: house.opened("b", 20)}
    return time_interleaved(openers, (SMALL, LARGE), timing, clock=house.clock)


def test_a_time_is_that_of_a_warm_run() -> None:
    """Each round gives the seconds of a run at each shape, without what came before it was warm."""
    found = timed(House(), TimingSettings(seconds=1e-9, rounds=3))

    expected = {"a": (40e-6, 160e-6), "b": (80e-6, 320e-6)}
    for name, seconds in expected.items():
        assert list(zip(*found[name], strict=True)) == [pytest.approx(seconds)] * 3


def test_models_take_turns_and_only_one_is_open() -> None:
    """The order turns every round, and each model closes before the next opens."""
    house = House()

    timed(house, TimingSettings(seconds=1e-9, rounds=3))

    order = ["a", "b", "b", "a", "a", "b"]
    assert house.log == [f"{verb} {name}" for name in order for verb in ("open", "close")]


def test_runs_fill_the_time_there_is() -> None:
    """A series goes on until its time is spent, and makes its fewest runs whatever they take."""
    short, long = House(), House()

    timed(short, TimingSettings(seconds=1e-9, rounds=1, min_runs=5))
    timed(long, TimingSettings(seconds=3.2e-3, rounds=1, min_runs=5))

    warm = 4 * 2
    assert short.runs == warm + 4 * 5
    assert long.runs == warm + 80 + 20 + 40 + 10


@pytest.mark.parametrize(
    "change",
    [{"seconds": 0}, {"seconds": float("nan")}, {"rounds": 0}, {"min_runs": 0}, {"warmup_runs": 0}],
    ids=str,
)
def test_an_effort_that_measures_nothing_is_refused(change: dict[str, float]) -> None:
    """No rounds, no runs and no time are errors when they are made."""
    with pytest.raises(BadSetting, match="measure nothing"):
        TimingSettings(**change)  # type: ignore[arg-type]


def test_another_clock_may_time_the_runs() -> None:
    """A run's time is what ``seconds`` returns, whatever the host's clock saw."""
    openers = {name: lambda s=speed: nullcontext(lambda shape: s) for name, speed in SPEEDS.items()}

    found = time_interleaved(
        openers, (SMALL,), TimingSettings(seconds=1e-3, rounds=2), seconds=lambda run: float(run())
    )

    assert found == {name: ((speed, speed),) for name, speed in SPEEDS.items()}
