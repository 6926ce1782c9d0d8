"""A grid of runs, each a process of its own, as many at once as fit.

Teachers come first, one a task and seed; a cell starts as soon as its teacher is finished. What is
finished is passed over, what was begun is resumed, and what fails does not stop the rest, so the
same command typed again always goes on. The sweep itself loads neither PyTorch nor a model.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spd_deploy.domain.errors import Interrupted, RunsFailed
from spd_deploy.domain.progress import Advance, Progress
from spd_train.sweep.capacity import Capacity, GpuWatch, gpu_free_bytes
from spd_train.sweep.command import PROGRAM, train_command
from spd_train.sweep.grid import Grid, data_folder
from spd_train.sweep.job_state import JobState, blocked, startable, state_of
from spd_train.sweep.jobs import Job, JobPaths
from spd_train.sweep.lock import locked
from spd_train.sweep.pool import Ended, Pool, last_words
from spd_train.sweep.run_record import (
    added,
    read_record,
    refuse_other_settings,
    settings_of,
    write_record,
)
from spd_train.training.metrics_log import METRICS_FILE

_POLL_S = 0.2
_POLL_GPU_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """What to run, where, and how many at once.

    Attributes:
        program: what is started with the words of ``spd train``.
        should_stop: asked several times a second; True stops the runs with their state saved.
    """

    grid: Grid
    output: Path
    room: Capacity
    device: str = "cpu"
    program: Sequence[str] = PROGRAM
    should_stop: Callable[[], bool] = lambda: False

    def command(self, job: Job, *, resume: bool) -> list[str]:
        """How a job is run."""
        return train_command(
            job, self.grid, self.output, device=self.device, resume=resume, program=self.program
        )


def states_of(grid: Grid, output: Path) -> dict[Job, JobState]:
    """How far each job of the grid has come."""
    return {job: state_of(output / job.place) for job in grid.jobs()}


def run_sweep(sweep: Sweep, progress: Progress) -> None:
    """Run what is not finished.

    Raises:
        BadSetting: a run that is there was begun with other settings.
        NotWritten: another sweep works in the folder.
        RunsFailed: some runs failed; all others are finished.
        Interrupted: stopped by ``should_stop``; the runs saved their states.
    """
    for task in sweep.grid.tasks:
        data_folder(sweep.grid.data, task)  # refuses early
    with locked(sweep.output) as descriptor:
        states = states_of(sweep.grid, sweep.output)
        begun = [job for job, state in states.items() if state is not JobState.NEW]
        refuse_other_settings(sweep.grid, sweep.output, begun)
        with Pool(threads=sweep.room.threads, keep_open=descriptor) as pool:
            _Run(sweep, states, pool, progress).to_the_end()


class _Run:
    """The loop: it owns the processes and the clock, and decides nothing."""

    def __init__(
        self, sweep: Sweep, states: dict[Job, JobState], pool: Pool, progress: Progress
    ) -> None:
        self.sweep = sweep
        self.states = states
        self.pool = pool
        self.progress = progress
        self.failed: list[Job] = []
        self.watch = GpuWatch(gpu_free_bytes) if sweep.room.watch_gpu else None

    def to_the_end(self) -> None:
        """Start and collect until nothing is left to do."""
        with self.progress.stage("sweep", len(self.states)) as advance:
            advance(self._finished())
            while not self.sweep.should_stop():
                self._collect(advance)
                self._start()
                if not len(self.pool):
                    break
                time.sleep(_POLL_GPU_S if self.watch else _POLL_S)
            self._stop(advance)
        self._report()

    def _start(self) -> None:
        """Start what may start, while there is room."""
        for job in startable(list(self.states), self.states, busy={*self.pool, *self.failed}):
            if not self._has_room():
                return
            place = JobPaths.of(self.sweep.output, job)
            asked = settings_of(self.sweep.grid, job)
            write_record(place.record, replace(read_record(place.record), settings=asked))
            if self.watch:
                self.watch.started(job, scores=_scores_in(place.folder))
            resume = self.states[job] is JobState.BEGUN
            self.pool.start(job, self.sweep.command(job, resume=resume), place.log)

    def _has_room(self) -> bool:
        """Whether another process fits."""
        if len(self.pool) >= self.sweep.room.processes:
            return False
        return self.watch is None or self.watch.admits(running=len(self.pool))

    def _collect(self, advance: Advance) -> None:
        """Take note of what has ended, and of what has reached its peak of memory."""
        for ended in self.pool.ended():
            self._note(ended, advance)
        if self.watch:
            for job in self.watch.growing:
                self.watch.seen(job, scores=_scores_in(self.sweep.output / job.place))

    def _note(self, ended: Ended, advance: Advance) -> None:
        """Write down what a run took, and say how it went."""
        job = ended.job
        place = JobPaths.of(self.sweep.output, job)
        record = added(
            read_record(place.record),
            seconds=ended.seconds,
            peak_memory_bytes=ended.peak_memory_bytes,
        )
        write_record(place.record, record)
        if self.watch:
            self.watch.ended(job)
        self.states[job] = state_of(place.folder)
        if self.states[job] is JobState.FINISHED:
            self.progress.note(f"{job} finished, {ended.seconds:.0f} s")
            advance()
        else:
            self.failed.append(job)
            if not self.sweep.should_stop():
                self.progress.note(f"{job} failed: {last_words(place.log)} ({place.log})")

    def _stop(self, advance: Advance) -> None:
        """Have what still runs save its state, and wait for it."""
        if not len(self.pool):
            return
        self.progress.note(f"stopping: {len(self.pool)} runs save their state")
        self.pool.interrupt()
        while len(self.pool):
            self._collect(advance)
            time.sleep(_POLL_S)

    def _report(self) -> None:
        """Raise where something is left to do."""
        count = f"{self._finished()} of {len(self.states)} runs are finished"
        if self.sweep.should_stop() and self._finished() < len(self.states):
            raise Interrupted(f"stopped; {count}", fix="go on with the same command")
        if self.failed:
            first, waiting = self.failed[0], len(blocked(list(self.states), self.failed))
            raise RunsFailed(
                f"{len(self.failed)} runs failed, {waiting} wait for them",
                got=f"{first}: {last_words(JobPaths.of(self.sweep.output, first).log)}",
                fix=f"mend the cause and type the same command again; {count}",
            )

    def _finished(self) -> int:
        """How many jobs are done."""
        return sum(state is JobState.FINISHED for state in self.states.values())


def _scores_in(folder: Path) -> int:
    """How many scores a run has logged."""
    with contextlib.suppress(OSError):
        return (folder / METRICS_FILE).read_text(encoding="utf-8").count('"kind": "score"')
    return 0
