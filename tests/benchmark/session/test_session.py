"""What a session on a GPU does next: order of worth, deadline, manifest, and what is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu_session import (
    MANIFEST_FILE,
    DeadlinePassed,
    Line,
    Phase,
    Progress,
    next_phase,
    read_progress,
    run_phases,
    state_of,
    write_progress,
)
from spd_deploy.domain.errors import BadReport, Unavailable, reason_of


class Time:
    """A clock that a phase moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def phase(
    name: str, expected_s: float, time: Time | None = None, *, takes_s: float | None = None
) -> Phase:
    """A phase that gives a line and takes as long as it is expected to, or ``takes_s``."""

    def work() -> Iterator[Line]:
        if time is not None:
            time.now_s += expected_s if takes_s is None else takes_s
        yield {"arm": name}

    return Phase(name=name, expected_s=expected_s, work=work)


def lines_of(phases: list[Phase], folder: Path, until_s: float, time: Time) -> list[Line]:
    return list(run_phases(phases, folder, until_s=until_s, clock=time, reason_of=reason_of))


@given(
    expected=st.lists(st.floats(1, 300), min_size=1, max_size=8),
    done=st.sets(st.integers(0, 7)),
    left_s=st.floats(0, 600),
)
def test_the_next_phase_is_the_first_that_fits(
    expected: list[float], done: set[int], left_s: float
) -> None:
    """None that is done, none that would end too late, and none before it would have fitted."""
    phases = [phase(str(i), seconds) for i, seconds in enumerate(expected)]
    progress = Progress(done={str(i): 1.0 for i in done})

    found = next_phase(phases, progress, left_s=left_s)

    fitting = [p for p in phases if int(p.name) not in done and p.expected_s <= left_s]
    assert found == (fitting[0] if fitting else None)


def test_a_second_call_goes_on(tmp_path: Path) -> None:
    """What was done is not done again, and what was not reached is named and comes next."""
    time = Time()
    phases = [phase("a", 100, time), phase("b", 100, time), phase("c", 100, time)]

    first = lines_of(phases, tmp_path, 250, time)
    second = lines_of(phases, tmp_path, 250, time)

    assert [(line["phase"], "not_run" in line) for line in first] == [
        ("a", False), ("b", False), ("c", True),
    ]  # fmt: skip
    assert [line["phase"] for line in second] == ["c"]
    assert lines_of(phases, tmp_path, 250, time) == []


def test_a_phase_that_was_cut_off_waits_for_more_time(tmp_path: Path) -> None:
    """It took longer than expected, so a call with as little time does not start it again."""
    time = Time()

    def cut() -> Iterator[Line]:
        yield {"arm": "a"}
        time.now_s += 200
        raise DeadlinePassed

    lines_of([Phase(name="a", expected_s=50, work=cut)], tmp_path, 200, time)

    progress = read_progress(tmp_path)
    assert state_of(phase("a", 50), progress, left_s=200) == "no time"
    assert state_of(phase("a", 50), progress, left_s=250) == "next"


def test_a_phase_that_fails_costs_no_other(tmp_path: Path) -> None:
    """Its lines and the reason are told; it is tried once more, and then given up."""
    time = Time()

    def broken() -> Iterator[Line]:
        yield {"arm": "one"}
        raise Unavailable("no kernel", fix="get one")

    phases = [Phase(name="a", expected_s=1, work=broken), phase("b", 1, time)]

    found = lines_of(phases, tmp_path, 100, time)

    assert [(line["phase"], line.get("not_run")) for line in found] == [
        ("a", None),
        ("a", "no kernel; get one"),
        ("a", None),
        ("a", "no kernel; get one"),
        ("b", None),
        ("a", "failed 2 times"),
    ]


def test_a_killed_phase_is_counted(tmp_path: Path) -> None:
    """The manifest knows of an attempt before its phase begins."""
    seen: list[Progress] = []

    def looks() -> Iterator[Line]:
        seen.append(read_progress(tmp_path))
        yield {}

    lines_of([Phase(name="a", expected_s=1, work=looks)], tmp_path, 10, Time())

    assert seen[0].attempts == {"a": 1}
    assert seen[0].done == {}


@given(
    done=st.dictionaries(st.text(max_size=5), st.floats(0, 1e4)),
    attempts=st.dictionaries(st.text(max_size=5), st.integers(0, 3)),
)
def test_a_manifest_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, done: dict[str, float], attempts: dict[str, int]
) -> None:
    """Whatever the phases are called."""
    folder = tmp_path_factory.mktemp("m")
    progress = Progress(done=done, attempts=attempts)

    write_progress(folder, progress)

    assert read_progress(folder) == progress


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": 9}', '{"schema": 1, "done": {}}'])
def test_another_manifest_is_refused(text: str, tmp_path: Path) -> None:
    """A folder of something else is not written into."""
    (tmp_path / MANIFEST_FILE).write_text(text)

    with pytest.raises(BadReport, match="another folder"):
        read_progress(tmp_path)
