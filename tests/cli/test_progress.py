"""Progress says what is left and what holds it up, on a terminal and in a log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.cli.long_run import remaining_time
from spd_deploy.cli.long_run.remaining_time import BusyWatch, RemainingTime
from spd_deploy.cli.output import console
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.domain.spelling import spelled_duration
from spd_deploy.timing.machine_load import CpuTimes


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@given(
    before=st.integers(0, 50),
    steps=st.integers(1, 200),
    left=st.integers(0, 500),
    seconds=st.floats(0.01, 100),
)
def test_of_equal_steps_the_rest_is_exact(
    before: int, steps: int, left: int, seconds: float
) -> None:
    """What is left takes its number of steps; those done before a resume count for nothing."""
    clock = Clock()
    found = RemainingTime(before + steps + left, clock=clock)
    found.count(before)
    for done in range(before + 1, before + steps + 1):
        clock.now += seconds
        found.count(done)

    assert found.left_s(before + steps) == pytest.approx(left * seconds)


def test_slow_steps_at_the_beginning_are_forgotten() -> None:
    """After ten steps of 10 s and a long time of quick ones, the quick ones are what counts."""
    clock = Clock()
    found = RemainingTime(1000, clock=clock)
    found.count(0)
    for done in range(1, 211):
        clock.now += 10 if done <= 10 else 1
        found.count(done)

    assert found.left_s(210) == pytest.approx(790, rel=0.01)


@given(
    slow=st.sets(st.integers(1, 59), min_size=2),
    first_s=st.floats(1, 1000),
    slow_s=st.floats(1, 100),
    quick_s=st.floats(0.1, 5),
    left=st.integers(1, 40),
)
def test_slow_steps_count_apart(
    slow: set[int], first_s: float, slow_s: float, quick_s: float, left: int
) -> None:
    """Once a second slow step is known the rest is exact, however long the first slow one took."""
    clock = Clock()
    slow_steps = sorted({0, *slow, 60})
    found = RemainingTime(60 + left, slow_steps, clock=clock)
    found.count(0)
    for step in range(60):
        clock.now += first_s if step == 0 else slow_s if step in slow else quick_s
        found.count(step + 1)

    quick = any(step not in slow_steps for step in range(60))
    expected = (left - 1) * quick_s + slow_s
    assert not quick or found.left_s(60) == pytest.approx(expected)


def test_before_the_first_step_nothing_is_told() -> None:
    """An estimate is made of steps that were done."""
    found = RemainingTime(10)
    assert found.left_s(0) is None
    found.count(4)
    assert found.left_s(4) is None


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7800, "2 h 10 min")],
)
def test_durations_are_spelled_for_people(seconds: float, spelled: str) -> None:
    """Seconds, minutes, or hours and minutes."""
    assert spelled_duration(seconds) == spelled


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stage_says_what_is_left(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of a log and a bar on a terminal have an estimate while a stage is under way."""
    monkeypatch.setattr(console, "_LOG_EVERY_S", 0.0)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    progress = TerminalProgress(watch=True)
    with progress.stage("teacher", 4) as advance:
        for _ in range(4):
            advance(note="loss 0.5")

    told = capsys.readouterr().err
    assert "teacher" in told and "4/4" in told and "loss 0.5" in told
    if not terminal:
        second = told.splitlines()[1]
        assert second.startswith("teacher: 2/4, 0 s, about 0 s left") and "loss 0.5" in second
        assert told.splitlines()[-1].startswith("teacher: done, 4/4, ")


@pytest.mark.parametrize(
    ("machine_s", "own_s", "warnings"),
    [
        (12.0, 12.0, []),  # alone
        (6.0, 0.0, []),  # others work, but this process leaves cores free
        (20.0, 10.0, ["other processes keep 1.0 of 2 cores busy"]),
    ],
)
def test_a_busy_machine_is_complained_of(
    machine_s: float, own_s: float, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where others and this process together want more cores than there are."""
    times = iter(
        [
            CpuTimes(clock_s=-10.0, machine_s=0.0, own_s=0.0),
            CpuTimes(clock_s=0.0, machine_s=machine_s, own_s=own_s),
        ]
    )
    monkeypatch.setattr(remaining_time, "cpu_times", lambda: next(times))
    monkeypatch.setattr(remaining_time, "usable_cores", lambda: 2.0)
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)

    assert BusyWatch().warnings() == warnings
