"""Training takes the threads that it is told to, or as many as find a free core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.cli.long_run import threads
from spd_deploy.cli.long_run.threads import choose_threads, fitting_threads
from spd_deploy.timing.machine_load import CpuTimes

LONG_AGO = CpuTimes(clock_s=-1e9, machine_s=0.0, own_s=0.0)


@pytest.mark.parametrize(
    ("cores", "elsewhere", "others", "fitting"),
    [(2, 0, 0.0, 2), (2, 0, 0.3, 2), (2, 0, 1.0, 1), (2, 0, 2.0, 1), (8, 0, 3.1, 5), (2, 6, 5, 2)],
)
def test_threads_fit_the_cores_that_are_free(
    cores: int, elsewhere: float, others: float, fitting: int
) -> None:
    """What others keep busy is left to them; what runs on cores of their own is not counted."""
    assert fitting_threads(cores, elsewhere=elsewhere, others=others) == fitting


@given(st.integers(1, 256), st.floats(0, 64), st.floats(0, 512))
def test_there_is_one_thread_at_least(cores: int, elsewhere: float, others: float) -> None:
    """However busy the machine is, training goes on, and never with more threads than cores."""
    assert 1 <= fitting_threads(cores, elsewhere=elsewhere, others=others) <= cores


def test_what_the_user_says_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """--threads wins; OMP_NUM_THREADS is left to PyTorch, which reads it, and is named."""
    told: list[str] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert choose_threads(3, LONG_AGO, told.append) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(3, LONG_AGO, told.append) == 3
    assert not told
    assert choose_threads(None, LONG_AGO, told.append) is None
    assert told == ["threads: 2, as OMP_NUM_THREADS says (change it with --threads)"]


@pytest.mark.parametrize("variable", [None, "1"])
def test_a_launcher_of_processes_chooses(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """Of several processes none chooses a number, and none tells of the launcher's."""
    told: list[str] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_threads(None, LONG_AGO, told.append) is None
    assert not told


@pytest.mark.parametrize(("others", "count"), [(0.1, 4), (2.0, 2)])
def test_a_busy_machine_is_told(others: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is told with the flag that changes it, and with what others take."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "default_threads", lambda: 4)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4.0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "others_cores", lambda before, after: others)
    told: list[str] = []

    assert choose_threads(None, LONG_AGO, told.append) == count

    (line,) = told
    assert line.startswith(f"threads: {count} of 4 cores") and "--threads" in line
    assert ("other processes keep 2.0 busy" in line) == (count < 4)
