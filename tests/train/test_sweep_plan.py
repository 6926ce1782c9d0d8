"""What a sweep starts next, and whether there is room for it: pure decisions."""

import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.cli.train import train
from spd_deploy.domain.checkpoint import SPD_FILE
from spd_train.sweep.capacity import (
    MARGIN,
    Capacity,
    GpuWatch,
    capacity_for,
    capacity_on_ray,
    may_start,
)
from spd_train.sweep.command import train_command
from spd_train.sweep.grid import Grid, TrainOptions
from spd_train.sweep.grid_file import grid_from
from spd_train.sweep.job_state import JobState, blocked, startable, state_of
from spd_train.sweep.jobs import Job, StudentJob, TeacherJob

GRID_VALUE = {
    "model": "m", "tasks": ["mrpc", "cola"], "patterns": ["2:4", "unstructured@0.9"],
    "recipes": ["spd", "prune"], "seeds": [0, 1],
}  # fmt: skip
GRID: Grid = grid_from(GRID_VALUE)
JOBS = GRID.jobs()
any_states = st.fixed_dictionaries({job: st.sampled_from(JobState) for job in JOBS})


@given(states=any_states, busy=st.sets(st.sampled_from(JOBS)))
def test_what_may_start_is_all_that_is_left(states: dict[Job, JobState], busy: set[Job]) -> None:
    """Exactly the jobs that are not finished, not busy, and have a finished teacher, in order."""
    found = startable(JOBS, states, busy=busy)

    assert found == [job for job in JOBS if job in found]
    for job in JOBS:
        free = states[job] is not JobState.FINISHED and job not in busy
        if isinstance(job, StudentJob):
            free = free and states[job.teacher] is JobState.FINISHED
        assert (job in found) == free


def test_teachers_come_first_and_cells_follow_their_own() -> None:
    """At the start only teachers may run; with one of them finished, just its cells join."""
    new = dict.fromkeys(JOBS, JobState.NEW)
    teacher = TeacherJob(task="cola", seed=1)

    assert startable(JOBS, new, busy=()) == GRID.teachers()
    cells = startable(JOBS, {**new, teacher: JobState.FINISHED}, busy=GRID.teachers())
    assert cells == [cell for cell in GRID.students() if cell.teacher == teacher]


def test_a_failed_teacher_blocks_its_cells() -> None:
    """Its cells wait, those of other teachers do not."""
    teacher = TeacherJob(task="mrpc", seed=0)

    assert blocked(JOBS, [teacher]) == [c for c in GRID.students() if c.teacher == teacher]
    assert blocked(JOBS, [GRID.students()[0]]) == []


def test_a_folder_tells_its_state(tmp_path: Path) -> None:
    """Nothing or an empty folder is new, any file begins it, ``spd.json`` finishes it."""
    folder = tmp_path / "run"
    assert state_of(folder) is JobState.NEW
    folder.mkdir()
    assert state_of(folder) is JobState.NEW
    (folder / "run.json").touch()
    assert state_of(folder) is JobState.BEGUN
    (folder / SPD_FILE).touch()
    assert state_of(folder) is JobState.FINISHED


@pytest.mark.parametrize(
    ("device", "processes", "expected"),
    [
        ("cpu", None, Capacity(jobs=8, threads=1)),
        ("cpu", 2, Capacity(jobs=2, threads=4)),
        ("cpu", 3, Capacity(jobs=3, threads=2)),
        ("cpu", 16, Capacity(jobs=16, threads=1)),
        ("cuda", None, Capacity(jobs=8, threads=1, watch_gpu=True)),
        ("cuda", 4, Capacity(jobs=4, threads=2)),
    ],
)
def test_room_is_a_core_a_run_unless_told(
    device: str, processes: int | None, expected: Capacity
) -> None:
    """Eight cores take eight runs, or share their threads among as many as asked for."""
    assert capacity_for(device, cores=8, jobs=processes) == expected


@pytest.mark.parametrize(
    ("device", "jobs", "threads", "gpus"),
    [("cpu", None, 1, 0.0), ("cpu", 2, 4, 0.0), ("cpu", 16, 1, 0.0), ("cuda", None, 1, 1.0),
     ("cuda", 4, 1, 0.25)],
)  # fmt: skip
def test_a_run_on_ray_has_a_core_or_a_share_of_a_gpu(
    device: str, jobs: int | None, threads: int, gpus: float
) -> None:
    """Eight cores of a machine, or a GPU, are shared among as many runs as asked for."""
    found = capacity_on_ray(device, cores=8, jobs=jobs)

    assert (found.threads, found.gpus, found.on_ray) == (threads, gpus, True)


@given(free=st.integers(0, 100), most=st.integers(0, 50), running=st.integers(0, 9), data=st.data())
def test_a_gpu_takes_one_more_only_where_it_fits(
    free: int, most: int, running: int, data: st.DataObject
) -> None:
    """Alone always, beside a growing run never, else where the largest so far fits twice."""
    growing = data.draw(st.integers(0, running))

    found = may_start(free, most, running=running, growing=growing)

    assert found == (running == 0 or (growing == 0 and free >= MARGIN * most))


class Gpu:
    """A GPU with 80 GB, some of them taken."""

    def __init__(self) -> None:
        self.taken = 0

    def free_bytes(self) -> int:
        return 80 - self.taken


def test_a_gpu_is_filled_up_and_not_over() -> None:
    """Runs of 9 GB are started one after another, each when the last has scored, seven in all."""
    gpu, cells = Gpu(), GRID.students()
    watch = GpuWatch(gpu.free_bytes)
    running = 0
    for job in cells:
        if not watch.admits(running=running):
            break
        watch.started(job, scores=0)
        running += 1
        assert not watch.admits(running=running)  # it still grows
        gpu.taken += 9
        watch.seen(job, scores=0)
        assert watch.growing == [job]
        watch.seen(job, scores=1)
        assert watch.growing == []

    assert (running, watch.most_taken_bytes) == (7, 9)
    gpu.taken -= 9
    watch.ended(cells[0])
    assert watch.admits(running=running - 1)


def test_old_scores_of_a_resumed_run_do_not_settle_it() -> None:
    """A run that was resumed counts as grown only when it has one score more than before."""
    gpu, job = Gpu(), JOBS[0]
    watch = GpuWatch(gpu.free_bytes)
    watch.started(job, scores=4)

    watch.seen(job, scores=4)

    assert watch.growing == [job]
    watch.ended(job)
    assert watch.growing == [] and watch.most_taken_bytes == 0


def test_the_options_of_a_grid_are_options_of_training_and_in_the_guide() -> None:
    """``spd train`` has every one of them, and the page of sweeps lists them."""
    names = [field.name for field in fields(TrainOptions)]
    page = Path("docs/how-to/sweep.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"those of one task: (.*?)\. With", page, re.DOTALL)

    assert set(names) <= {option.name for option in train.params}
    assert re.findall(r"`(\w+)`", listed) == names


def test_texts_are_read_in_windows_where_the_grid_says_so() -> None:
    """Teacher and student get the options, with a stride that may be 0."""
    table = {"long_texts": "windows", "window_stride": 0, "metric": "f1"}
    grid = grid_from({**GRID_VALUE, "train": table})

    for job in (grid.teachers()[0], grid.students()[0]):
        words = set(pairwise(train_command(job, grid, Path("out"))))
        assert {("--long-texts", "windows"), ("--window-stride", "0"), ("--metric", "f1")} <= words
