"""A sweep of real child processes that do what ``spd train`` does to its folder, in no time."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadData,
    BadSetting,
    Interrupted,
    NotWritten,
    RunsFailed,
    Unavailable,
)
from spd_deploy.domain.progress import Silent
from spd_train.recipes import RECIPES
from spd_train.sweep import run_sweep as run_sweep_module
from spd_train.sweep.capacity import Capacity
from spd_train.sweep.child import Child
from spd_train.sweep.grid import Grid
from spd_train.sweep.grid_file import grid_from
from spd_train.sweep.job_state import JobState
from spd_train.sweep.jobs import Job, JobPaths
from spd_train.sweep.lock import lock_folder
from spd_train.sweep.run_record import RunRecord, read_record, with_attempt, write_record
from spd_train.sweep.run_sweep import SweepConfig, run_sweep, states_of
from tests.train.fake_train import PROGRAM
from tests.train.made_runs import make_run

TEACHER = "teachers/mrpc/seed-0"
CELL = "runs/mrpc/2-4/prune/seed-0"


def small(**changes: Any) -> Grid:
    """One task, two recipes: a teacher and two students."""
    value = {
        "model": "m", "tasks": ["mrpc"], "patterns": ["2:4"], "recipes": ["spd", "prune"],
        "seeds": [0], "train": {"epochs": 3},
    }  # fmt: skip
    return grid_from({**value, **changes})


def sweep_of(
    output: Path, grid: Grid | None = None, *, processes: int = 2, **changes: Any
) -> SweepConfig:
    """A sweep whose children are fakes."""
    room = Capacity(jobs=processes, threads=1)
    return SweepConfig(
        grid=grid or small(), output=output, capacity=room, program=PROGRAM, **changes
    )


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep sees at once what has become of its children."""
    monkeypatch.setattr(run_sweep_module, "_POLL_S", 0.01)


def job_at(grid: Grid, place: str) -> Job:
    """The job with this folder."""
    return next(job for job in grid.jobs() if job.folder == place)


def calls(output: Path) -> dict[str, list[str]]:
    """The command lines that the children got, by place."""
    return {
        job.folder: [
            line
            for line in JobPaths.of(output, job).log.read_text().splitlines()
            if line.startswith("train ")
        ]
        for job in small().jobs()
        if JobPaths.of(output, job).log.exists()
    }


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something happened."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sweep_runs_everything_once(tmp_path: Path) -> None:
    """Teacher and students are finished, each with its log and a record of what it took."""
    run_sweep(sweep_of(tmp_path), Silent())

    assert set(states_of(small(), tmp_path).values()) == {JobState.FINISHED}
    assert {place: len(lines) for place, lines in calls(tmp_path).items()} == {
        job.folder: 1 for job in small().jobs()
    }
    assert all("OMP_NUM_THREADS=1" in lines[0] for lines in calls(tmp_path).values())
    for job in small().jobs():
        record = read_record(JobPaths.of(tmp_path, job).record)
        whole = job.folder == TEACHER
        asked = {"model": "m"} if whole else {"model": "m", "epochs": 3}
        assert record.settings.items() >= asked.items()
        assert ("teacher.learning_rate" if whole else "student.mix_pairs") in record.settings
        assert record.seconds is not None and record.seconds > 0
        assert record.peak_memory_bytes is None or record.peak_memory_bytes > 0


def test_a_finished_sweep_starts_nothing(tmp_path: Path) -> None:
    """The same command again leaves every log as it was."""
    run_sweep(sweep_of(tmp_path), Silent())
    before = calls(tmp_path)

    run_sweep(sweep_of(tmp_path), Silent())

    assert calls(tmp_path) == before


def test_a_grown_grid_only_adds_runs(tmp_path: Path) -> None:
    """With a new recipe and seed, what was finished is not run again."""
    run_sweep(sweep_of(tmp_path), Silent())
    before = calls(tmp_path)
    grown = small(recipes=["one-shot", "prune", "spd"], seeds=[0, 1])

    run_sweep(sweep_of(tmp_path, grown), Silent())

    assert set(states_of(grown, tmp_path).values()) == {JobState.FINISHED}
    assert calls(tmp_path) == before


def test_what_was_begun_is_resumed(tmp_path: Path) -> None:
    """A folder that holds something gets ``--resume``, the others do not."""
    (tmp_path / CELL).mkdir(parents=True)
    (tmp_path / CELL / "run.json").touch()

    run_sweep(sweep_of(tmp_path), Silent())

    resumed = {
        place: lines[0].split()[-2] == "--resume" for place, lines in calls(tmp_path).items()
    }
    assert resumed == {job.folder: job.folder == CELL for job in small().jobs()}


def test_a_failing_run_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with the last line of its log, the rest is finished, and later it runs again."""
    monkeypatch.setenv("SPD_FAKE_FAIL", CELL)
    notes = Notes()

    with pytest.raises(RunsFailed) as failed:
        run_sweep(sweep_of(tmp_path, processes=1), notes)

    assert "1 runs failed" in failed.value.what and "2 of 3" in failed.value.fix
    (told,) = (note for note in notes.told if "finished" not in note)
    assert told.startswith("mrpc 2:4 prune seed 0 failed: the loss is not a number; got nan")
    states = states_of(small(), tmp_path)
    assert [s for j, s in states.items() if j.folder != CELL] == [JobState.FINISHED] * 2
    monkeypatch.delenv("SPD_FAKE_FAIL")
    run_sweep(sweep_of(tmp_path), Silent())
    assert len(calls(tmp_path)[CELL]) == 2


def test_cells_of_a_failed_teacher_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their teacher they wait, and the error counts them."""
    monkeypatch.setenv("SPD_FAKE_FAIL", TEACHER)

    with pytest.raises(RunsFailed, match="1 runs failed, 2 wait for them"):
        run_sweep(sweep_of(tmp_path), Silent())

    assert list(calls(tmp_path)) == [TEACHER]


def test_no_more_than_the_room_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one, the second student is not begun while the first holds on."""
    monkeypatch.setenv("SPD_FAKE_WAIT", "runs/")
    students = [tmp_path / student.folder / "run.json" for student in small().students()]

    with pytest.raises(Interrupted):
        run_sweep(
            sweep_of(tmp_path, processes=1, should_stop=lambda: any(c.exists() for c in students)),
            Silent(),
        )

    assert [student.exists() for student in students] == [True, False]


def test_a_stop_is_passed_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both running students get one SIGTERM, are waited for, and go on with the same command."""
    monkeypatch.setenv("SPD_FAKE_WAIT", "runs/")
    students = [tmp_path / student.folder for student in small().students()]
    notes = Notes()

    with pytest.raises(Interrupted, match="1 of 3 runs are finished"):
        run_sweep(
            sweep_of(
                tmp_path, should_stop=lambda: all((c / "run.json").exists() for c in students)
            ),
            notes,
        )

    assert [(c / "signals").read_text() for c in students] == [f"{signal.SIGTERM.value}\n"] * 2
    assert notes.told[0].startswith("mrpc dense seed 0 finished, ")
    assert notes.told[1:] == ["stopping: 2 runs save their state"]
    monkeypatch.delenv("SPD_FAKE_WAIT")
    run_sweep(sweep_of(tmp_path), Silent())
    assert all(
        lines[-1].split()[-2] == "--resume" for p, lines in calls(tmp_path).items() if p != TEACHER
    )


def test_an_error_of_the_sweep_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the sweep ends its children, and the folder is free again."""
    monkeypatch.setenv("SPD_FAKE_WAIT", TEACHER)

    def stop() -> bool:
        if (tmp_path / TEACHER / "run.json").exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep_of(tmp_path, should_stop=stop), Silent())

    with lock_folder(tmp_path, [JobPaths.of(tmp_path, job).log for job in small().jobs()]):
        pass


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused while the first works, and starts nothing."""
    monkeypatch.setenv("SPD_FAKE_WAIT", TEACHER)
    enough = threading.Event()

    def first() -> None:
        with pytest.raises(Interrupted):
            run_sweep(sweep_of(tmp_path, should_stop=enough.is_set), Silent())

    thread = threading.Thread(target=first)
    thread.start()
    try:
        wait_for((tmp_path / TEACHER / "run.json").exists)
        with pytest.raises(NotWritten, match="another sweep"):
            run_sweep(sweep_of(tmp_path), Silent())
    finally:
        enough.set()
        thread.join()
    assert len(calls(tmp_path)[TEACHER]) == 1


def test_what_a_killed_sweep_leaves_running_holds_the_lock(tmp_path: Path) -> None:
    """A child that outlives its sweep keeps others out until it ends."""
    log = tmp_path / "seed-0.log"
    child = Child([sys.executable, "-c", "import time; time.sleep(60)"], log, threads=1)
    with pytest.raises(NotWritten, match="a run of a killed sweep"), lock_folder(tmp_path, [log]):
        pass
    with pytest.raises(NotWritten, match="still writes"):
        Child([sys.executable, "-c", ""], log, threads=1)

    child.kill()

    with lock_folder(tmp_path, [log, tmp_path / "none.log"]):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 4}},
        {"train": {}},
        {"model": "other"},
        {"train": {"mrpc": {"epochs": 9}}},
    ],
    ids=str,
)
def test_changed_settings_are_not_mixed_into_old_runs(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """A grid that would have trained a finished run otherwise is refused, with the difference."""
    run_sweep(sweep_of(tmp_path), Silent())
    before = calls(tmp_path)

    with pytest.raises(BadSetting, match="was started with another"):
        run_sweep(sweep_of(tmp_path, small(**changes)), Silent())

    assert calls(tmp_path) == before


def test_an_arm_that_became_another_is_not_mixed_with_its_old_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a later version makes a recipe otherwise, finished runs are refused by the field."""
    run_sweep(sweep_of(tmp_path), Silent())
    recipe = small().recipes[0]
    later = replace(RECIPES[recipe](), learning_rate=0.5)
    monkeypatch.setitem(cast("dict[str, object]", RECIPES), recipe, lambda: later)

    with pytest.raises(BadSetting, match=r"another student.learning_rate; got 0.5"):
        run_sweep(sweep_of(tmp_path), Silent())


def test_a_moved_model_is_the_same_model(tmp_path: Path) -> None:
    """Of the model's path only the name counts."""
    run_sweep(sweep_of(tmp_path), Silent())

    run_sweep(sweep_of(tmp_path, small(model="elsewhere/m/")), Silent())


def test_runs_of_others_are_taken_as_they_are(tmp_path: Path) -> None:
    """A finished teacher that was put there by hand has no record and is used."""
    grid = small()
    make_run(tmp_path / TEACHER, job_at(grid, TEACHER))

    run_sweep(sweep_of(tmp_path), Silent())

    assert TEACHER not in calls(tmp_path)
    assert set(states_of(grid, tmp_path).values()) == {JobState.FINISHED}


def test_missing_data_is_told_before_anything_starts(tmp_path: Path) -> None:
    """A task without a folder ends the sweep with nothing written."""
    (tmp_path / "glue").mkdir()
    grid = replace(small(), data=tmp_path / "glue")

    with pytest.raises(BadData, match="no single folder for the task mrpc"):
        run_sweep(sweep_of(tmp_path / "out", grid), Silent())

    assert not (tmp_path / "out").exists()


def test_a_program_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    """What the system refuses to start ends the sweep with the reason."""
    with pytest.raises(Unavailable, match="could not start mrpc dense seed 0"):
        run_sweep(replace(sweep_of(tmp_path), program=("no-such-program",)), Silent())


def test_attempts_add_up(tmp_path: Path) -> None:
    """A record keeps the seconds of all attempts and the highest peak, and survives the disk."""
    record = with_attempt(RunRecord(settings={"epochs": 3}), seconds=2.0, peak_memory_bytes=None)
    record = with_attempt(record, seconds=3.0, peak_memory_bytes=7)
    record = with_attempt(record, seconds=0.5, peak_memory_bytes=5)
    write_record(tmp_path / "r.json", record)

    assert read_record(tmp_path / "r.json") == record
    assert (record.seconds, record.peak_memory_bytes) == (5.5, 7)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="does not read"):
        read_record(tmp_path / "r.json")
