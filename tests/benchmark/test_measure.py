"""The loop that times, under a clock that only the sessions move."""

import numpy as np
import pytest
from numpy.typing import NDArray

from spd_deploy.benchmark.measure import measure
from spd_deploy.benchmark.records import BenchmarkSettings, Series, Shape
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Closing, Description, Session

SMALL, LARGE = Shape(batch=1, seq=4), Shape(batch=2, seq=8)
US = 1000


class House:
    """A clock, and the order in which sessions were opened and closed."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log: list[str] = []

    def clock(self) -> int:
        """The time, which stands still unless a session runs."""
        return self.now_ns


class Timed(Closing):
    """A session that takes so many microseconds a token, and one more each time it is run."""

    description = Description(
        runtime="made", version="1", device="cpu", precision="fp32", threads=1
    )

    def __init__(self, house: House, name: str, us_per_token: int) -> None:
        self.house, self.name, self.us_per_token, self.runs = house, name, us_per_token, 0
        house.log.append(f"open {name}")

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Move the clock."""
        self.house.now_ns += (self.us_per_token * batch.ids_BS.size + self.runs) * US
        self.runs += 1
        return np.zeros((len(batch.ids_BS), 2), np.float32)

    def close(self) -> None:
        """Write it down."""
        self.house.log.append(f"close {self.name}")


class Failing(Timed):
    """A session that cannot run."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Fail."""
        raise RuntimeError("no")


def settings(**changes: int | float) -> BenchmarkSettings:
    """Two rounds of exactly four runs after one warm-up run."""
    plain: dict[str, int | float] = {
        "rounds": 2, "seconds": 1e-9, "warmup_runs": 1, "min_runs": 4, "max_runs": 4,
    }  # fmt: skip
    return BenchmarkSettings(shapes=(SMALL, LARGE), **{**plain, **changes})  # type: ignore[arg-type]


def measured(
    house: House, chosen: BenchmarkSettings, *, kind: type[Timed] = Timed
) -> tuple[Series, ...]:
    """Two arms, of 10 and 20 microseconds a token, timed."""
    random = np.random.default_rng(0)
    batches = {shape: random_batch(shape, 9, random) for shape in chosen.shapes}

    def opener(name: str, speed: int) -> Session:
        return kind(house, name, speed)

    openers = {"a": lambda: opener("a", 10), "b": lambda: opener("b", 20)}
    return measure(openers, batches, chosen, clock=house.clock, progress=Silent())


def test_a_sample_is_the_time_its_own_run_took() -> None:
    """Samples are what each run moved the clock by, in seconds, the warm-up apart."""
    first = measured(House(), settings())[0]

    assert (first.arm, first.shape, first.round) == ("a", SMALL, 0)
    assert first.warmup_s == pytest.approx([40e-6], rel=1e-12)
    assert first.seconds == pytest.approx([41e-6, 42e-6, 43e-6, 44e-6], rel=1e-12)


def test_every_arm_is_timed_at_every_shape_in_every_round() -> None:
    """There is one series for each, and none twice."""
    series = measured(House(), settings(rounds=3))

    found = [(s.arm, s.shape, s.round) for s in series]
    wanted = {(arm, shape, i) for arm in "ab" for shape in (SMALL, LARGE) for i in range(3)}
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_arms_take_turns_and_only_one_is_open() -> None:
    """The order turns every round, and each session closes before the next opens."""
    house = House()
    measured(house, settings())

    order = ["a", "b", "b", "a"]
    assert house.log == [f"{verb} {arm}" for arm in order for verb in ("open", "close")]


def test_a_series_ends_with_its_time() -> None:
    """Runs go on until the time of a series is spent, and no further."""
    series = measured(House(), settings(seconds=2e-3, min_runs=1, max_runs=10_000))

    for found in series:
        assert sum(found.seconds) >= 1e-3
        assert sum(found.seconds[:-1]) < 1e-3


def test_a_slow_arm_still_gets_its_fewest_runs() -> None:
    """The fewest runs are made even where the first one took all the time."""
    series = measured(House(), settings(min_runs=3, max_runs=5))

    assert {len(s.seconds) for s in series} == {3}


def test_a_fast_arm_stops_at_the_most_runs() -> None:
    """No series is longer than the settings allow."""
    series = measured(House(), settings(seconds=3600.0, min_runs=1, max_runs=7))

    assert {len(s.seconds) for s in series} == {7}


def test_a_failing_session_is_closed() -> None:
    """What a run raises comes through, with the session closed."""
    house = House()
    with pytest.raises(RuntimeError, match="no"):
        measured(house, settings(), kind=Failing)

    assert house.log == ["open a", "close a"]
