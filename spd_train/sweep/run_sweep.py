"""A grid of runs, each a process of its own, several at a time, here or on a Ray cluster.

Teachers come first, one for each task and seed. A student starts as soon as its teacher is
finished. Finished runs are kept, started ones are resumed, and a failure does not stop the others,
so the same command always continues the sweep. The sweep itself loads neither PyTorch nor a model.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spd_deploy.domain.errors import Interrupted, RunsFailed, Unavailable
from spd_deploy.domain.progress import Advance, Progress
from spd_train.sweep.capacity import Capacity, GpuWatch, gpu_free_bytes
from spd_train.sweep.child import Child, Run, RunEnd, last_log_line
from spd_train.sweep.command import PROGRAM, train_command
from spd_train.sweep.grid import Grid, data_folder
from spd_train.sweep.job_state import JobState, blocked, startable, state_of
from spd_train.sweep.jobs import Job, JobPaths
from spd_train.sweep.lock import lock_folder
from spd_train.sweep.run_record import (
    read_record,
    refuse_other_settings,
    settings_of,
    with_attempt,
    write_record,
)
from spd_train.training.metrics_log import METRICS_FILE

_POLL_S = 0.2
_POLL_GPU_S = 1.0
# A run whose machine died goes on elsewhere, but not for ever.
_STARTED_AGAIN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """The plan of a sweep: jobs, folder, and how many run at the same time.

    Attributes:
        grid: the runs.
        output: folder to write.
        capacity: the largest number of runs at the same time.
        device: device of all runs, ``cpu`` or ``cuda``.
        program: command to which the arguments of ``spd train`` are added.
        start: starts a command line with the log that it writes; by default as a child.
        should_stop: called several times a second; True stops the runs with their state saved.
    """

    grid: Grid
    output: Path
    capacity: Capacity
    device: str = "cpu"
    program: Sequence[str] = PROGRAM
    start: Callable[[Sequence[str], Path], Run] | None = None
    should_stop: Callable[[], bool] = lambda: False

    def command(self, job: Job, *, resume: bool) -> list[str]:
        """The command line of a job."""
        return train_command(
            job, self.grid, self.output, device=self.device, resume=resume, program=self.program
        )


def states_of(grid: Grid, output: Path) -> dict[Job, JobState]:
    """The state of each job of the grid."""
    return {job: state_of(output / job.folder) for job in grid.jobs()}


def run_sweep(sweep: SweepConfig, progress: Progress) -> None:
    """Run all jobs of the grid that are not finished.

    Raises:
        BadSetting: a run in the folder was started with other settings.
        NotWritten: another sweep uses the folder.
        RunsFailed: some runs failed; all others are finished.
        Interrupted: ``should_stop`` returned True; the runs saved their state.
    """
    for task in sweep.grid.tasks:
        data_folder(sweep.grid.data, task)  # refuses early
    with lock_folder(sweep.output, [JobPaths.of(sweep.output, j).log for j in sweep.grid.jobs()]):
        states = states_of(sweep.grid, sweep.output)
        begun = [job for job, state in states.items() if state is not JobState.NEW]
        refuse_other_settings(sweep.grid, sweep.output, begun)
        loop = _Loop(sweep, states, progress)
        try:
            loop.run()
        finally:
            for run in loop.running.values():
                run.kill()


class _Loop:
    """The loop of a sweep: it owns the processes and the clock, and decides nothing."""

    def __init__(self, sweep: SweepConfig, states: dict[Job, JobState], progress: Progress) -> None:
        self.sweep = sweep
        self.states = states
        self.progress = progress
        self.start = sweep.start or partial(Child, threads=sweep.capacity.threads)
        self.running: dict[Job, Run] = {}
        self.failed: list[Job] = []
        self.lost: Counter[Job] = Counter()
        self.watch = GpuWatch(gpu_free_bytes) if sweep.capacity.watch_gpu else None

    def run(self) -> None:
        """Start jobs and collect their results until none is left."""
        with self.progress.stage("sweep", len(self.states)) as advance:
            advance(self._finished())
            while not self.sweep.should_stop():
                self._collect(advance)
                self._start()
                if not self.running:
                    break
                time.sleep(_POLL_GPU_S if self.watch else _POLL_S)
            self._stop(advance)
        self._report()

    def _start(self) -> None:
        """Start the jobs that may start, up to the capacity."""
        for job in startable(list(self.states), self.states, busy={*self.running, *self.failed}):
            if not self._has_room():
                return
            paths = JobPaths.of(self.sweep.output, job)
            settings = settings_of(self.sweep.grid, job)
            write_record(paths.record, replace(read_record(paths.record), settings=settings))
            if self.watch:
                self.watch.started(job, scores=_scores_in(paths.folder))
            resume = self.states[job] is JobState.BEGUN
            try:
                self.running[job] = self.start(self.sweep.command(job, resume=resume), paths.log)
            except Unavailable as err:
                raise Unavailable(f"could not start {job}", got=err.got, fix=err.fix) from err

    def _has_room(self) -> bool:
        """Whether the capacity allows another process."""
        if len(self.running) >= self.sweep.capacity.jobs:
            return False
        return self.watch is None or self.watch.admits(running=len(self.running))

    def _collect(self, advance: Advance) -> None:
        """Record the jobs that have ended, and the memory of those that have reached their peak."""
        for job, run in tuple(self.running.items()):
            if (end := run.poll()) is not None:
                del self.running[job]
                self._record(job, end, advance)
        if self.watch:
            for job in self.watch.growing:
                self.watch.seen(job, scores=_scores_in(self.sweep.output / job.folder))

    def _record(self, job: Job, end: RunEnd, advance: Advance) -> None:
        """Record the time and the memory of a job, and report how it ended."""
        paths = JobPaths.of(self.sweep.output, job)
        record = with_attempt(
            read_record(paths.record),
            seconds=end.seconds,
            peak_memory_bytes=end.peak_memory_bytes,
        )
        write_record(paths.record, record)
        if self.watch:
            self.watch.ended(job)
        self.states[job] = state_of(paths.folder)
        if self.states[job] is JobState.FINISHED:
            self.progress.note(f"{job} finished, {end.seconds:.0f} s")
            advance()
        elif end.lost and self.lost[job] < _STARTED_AGAIN:
            self.lost[job] += 1
            self.progress.note(f"{job} is started again: {end.reason}")
        else:
            self.failed.append(job)
            if not self.sweep.should_stop():
                reason = end.reason or last_log_line(paths.log)
                self.progress.note(f"{job} failed: {reason} ({paths.log})")

    def _stop(self, advance: Advance) -> None:
        """Interrupt the running jobs, and wait until they have saved their state."""
        if not self.running:
            return
        self.progress.note(f"stopping: {len(self.running)} runs save their state")
        for run in self.running.values():
            run.interrupt()
        while self.running:
            self._collect(advance)
            time.sleep(_POLL_S)

    def _report(self) -> None:
        """Raise an error if any job is not finished."""
        count = f"{self._finished()} of {len(self.states)} runs are finished"
        if self.sweep.should_stop() and self._finished() < len(self.states):
            raise Interrupted(f"stopped; {count}", fix="continue with the same command")
        if self.failed:
            first, waiting = self.failed[0], len(blocked(list(self.states), self.failed))
            raise RunsFailed(
                f"{len(self.failed)} runs failed, {waiting} wait for them",
                got=f"{first}: {last_log_line(JobPaths.of(self.sweep.output, first).log)}",
                fix=f"correct the cause and run the same command again; {count}",
            )

    def _finished(self) -> int:
        """The number of finished jobs."""
        return sum(state is JobState.FINISHED for state in self.states.values())


def _scores_in(folder: Path) -> int:
    """The number of scores in a run's log."""
    with contextlib.suppress(OSError):
        return (folder / METRICS_FILE).read_text(encoding="utf-8").count('"kind": "score"')
    return 0
