"""A sweep on Ray, whose children are fakes: it is stopped, resumed, and loses a worker."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from spd_deploy.domain.errors import Interrupted, Unavailable
from spd_deploy.domain.progress import Silent
from spd_train.sweep.capacity import Capacity, capacity_on_ray
from spd_train.sweep.grid_file import grid_from
from spd_train.sweep.job_state import JobState
from spd_train.sweep.jobs import JobPaths
from spd_train.sweep.ray_runs import RayRuns
from spd_train.sweep.run_record import read_record
from spd_train.sweep.run_sweep import SweepConfig, run_sweep, states_of
from tests.scale.ray_processes import kill_workers, wait_until_free

GRID = grid_from(
    {"model": "m", "tasks": ["mrpc"], "patterns": ["2:4"], "recipes": ["spd", "prune"],
     "seeds": [0]}
)  # fmt: skip
STUDENTS = [job.folder for job in GRID.students()]


def sweep_of(
    ray: ModuleType, output: Path, *, wait: str = "", stop: Callable[[], bool] = lambda: False
) -> SweepConfig:
    """A sweep on Ray; new runs in folders with ``wait`` in their paths wait for a signal."""
    capacity = capacity_on_ray("cpu", cores=2, jobs=None)
    code = f"import os, sys; held = 'nowhere' if '--resume' in sys.argv else {wait!r} or 'nowhere'"
    return SweepConfig(
        grid=GRID,
        output=output,
        capacity=capacity,
        program=(
            sys.executable,
            "-c",
            f"{code}; os.environ['SPD_FAKE_WAIT'] = held\n"
            "from tests.train.fake_train import main; main()",
        ),
        start=RayRuns(ray, capacity).start,
        should_stop=stop,
    )


def starts(output: Path) -> dict[str, list[bool]]:
    """Of each run, whether each of its processes was told to resume."""
    logs = {job.folder: JobPaths.of(output, job).log for job in GRID.jobs()}
    return {
        folder: ["--resume" in line for line in log.read_text().splitlines() if "train " in line]
        for folder, log in logs.items()
    }


def test_a_sweep_on_ray_is_stopped_and_goes_on(started_ray: ModuleType, tmp_path: Path) -> None:
    """Runs save their state at one SIGTERM, are resumed, and what was finished is not run again."""
    wait_until_free(started_ray)
    begun = [tmp_path / folder / "run.json" for folder in STUDENTS]
    sweep = sweep_of(
        started_ray, tmp_path, wait="runs/", stop=lambda: all(file.exists() for file in begun)
    )

    with pytest.raises(Interrupted, match="1 of 3 runs are finished"):
        run_sweep(sweep, Silent())
    signals = [(tmp_path / folder / "signals").read_text() for folder in STUDENTS]
    run_sweep(sweep_of(started_ray, tmp_path), Silent())

    assert signals == [f"{signal.SIGTERM.value}\n"] * 2
    assert set(states_of(GRID, tmp_path).values()) == {JobState.FINISHED}
    teacher = next(iter(GRID.teachers()))
    assert starts(tmp_path) == {
        teacher.folder: [False], **{folder: [False, True] for folder in STUDENTS}
    }  # fmt: skip
    assert read_record(JobPaths.of(tmp_path, teacher).record).seconds


class _Killer(Silent):
    """Kills the processes of Ray that watch runs, once one has begun."""

    def __init__(self, begun: Path) -> None:
        self.begun = begun
        self.told: list[str] = []
        self.killed = False

    def __call__(self) -> bool:
        if not self.killed and self.begun.exists():
            self.killed = True
            kill_workers("run_as_child")
        return False

    def note(self, text: str) -> None:
        self.told.append(text)


def test_a_run_whose_worker_dies_goes_on(started_ray: ModuleType, tmp_path: Path) -> None:
    """It ends with its worker, is resumed in another process of Ray, and the user is told."""
    killer = _Killer(tmp_path / STUDENTS[0] / "run.json")

    run_sweep(sweep_of(started_ray, tmp_path, wait=STUDENTS[0], stop=killer), killer)

    assert set(states_of(GRID, tmp_path).values()) == {JobState.FINISHED}
    assert starts(tmp_path)[STUDENTS[0]] == [False, True]
    assert any("spd seed 0 is started again: WorkerCrashedError" in line for line in killer.told)


def test_a_run_that_fits_nowhere_is_refused(started_ray: ModuleType) -> None:
    """It would wait for ever: more cores than a machine has, or a GPU where there is none."""
    with pytest.raises(Unavailable, match="has 3 CPU; got 2 on the largest"):
        RayRuns(started_ray, Capacity(jobs=1, threads=3, on_ray=True))
    with pytest.raises(Unavailable, match="has 1 GPU; got 0 on the largest"):
        RayRuns(started_ray, capacity_on_ray("cuda", cores=2, jobs=4))
