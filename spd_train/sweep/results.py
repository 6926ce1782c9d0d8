"""What a grid's outcomes say together: means over seeds, gaps, and averages over tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import task_named
from spd_train.seeds import Summary, summarise
from spd_train.sweep.grid import Grid
from spd_train.sweep.jobs import DENSE, Job, StudentJob, TeacherJob
from spd_train.sweep.outcomes import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A grid, and the outcomes of its finished jobs.

    An arm is one of the grid's, or ``dense`` for the teachers, which are the same for every
    pattern. What is not there is None.
    """

    grid: Grid
    outcomes: Mapping[Job, Outcome]

    @property
    def arms(self) -> tuple[str, ...]:
        """The teachers and the grid's own."""
        return (DENSE, *self.grid.arms)

    @property
    def patterns(self) -> tuple[Pattern | None, ...]:
        """The grid's; where it has teachers alone, the one that they are of."""
        return self.grid.patterns or (None,)

    @property
    def finished(self) -> int:
        """How many jobs there is an outcome of."""
        return len(self.outcomes)

    @property
    def total(self) -> int:
        """How many jobs the grid has."""
        return len(self.grid.jobs())

    @property
    def has_students(self) -> bool:
        """Whether any sparse run is finished, so that there is something to draw."""
        return any(isinstance(job, StudentJob) for job in self.outcomes)

    def metric(self, task: str) -> str:
        """A task's headline."""
        return task_named(task).metrics[0]

    def of(self, task: str, pattern: Pattern | None, arm: str) -> list[Outcome]:
        """The finished runs, seed by seed."""
        jobs = [self._job(task, pattern, arm, seed) for seed in self.grid.seeds]
        return [self.outcomes[job] for job in jobs if job in self.outcomes]

    def score(self, task: str, pattern: Pattern | None, arm: str) -> Summary | None:
        """The headline on dev."""
        return summarise([run.score for run in self.of(task, pattern, arm)])

    def gap(self, task: str, pattern: Pattern | None, arm: str) -> Summary | None:
        """The headline on train minus that on dev."""
        return summarise([run.gap for run in self.of(task, pattern, arm)])

    def kept(self, task: str, pattern: Pattern | None, arm: str) -> float | None:
        """Share of the dense score that is left: the mean's of the seeds that have both."""
        pairs = []
        for seed in self.grid.seeds:
            sparse = self._value(_score, task, pattern, arm, seed)
            dense = self._value(_score, task, pattern, DENSE, seed)
            if sparse is not None and dense is not None:
                pairs.append((sparse, dense))
        whole = sum(dense for _, dense in pairs)
        return sum(sparse for sparse, _ in pairs) / whole if whole > 0 else None

    def average_score(self, pattern: Pattern | None, arm: str) -> Summary | None:
        """The mean over tasks, seed by seed; only seeds that have every task count."""
        return self._average(_score, pattern, arm)

    def average_gap(self, pattern: Pattern | None, arm: str) -> Summary | None:
        """The gap's mean over tasks, likewise."""
        return self._average(_gap, pattern, arm)

    def average_kept(self, pattern: Pattern | None, arm: str) -> float | None:
        """The mean over tasks of the share kept; None unless every task has one."""
        found = [self.kept(task, pattern, arm) for task in self.grid.tasks]
        shares = [share for share in found if share is not None]
        return sum(shares) / len(shares) if len(shares) == len(found) else None

    def _average(
        self, value: Callable[[Outcome], float | None], pattern: Pattern | None, arm: str
    ) -> Summary | None:
        """Means over tasks, one a seed, summarised over seeds."""
        means = []
        for seed in self.grid.seeds:
            found = [self._value(value, task, pattern, arm, seed) for task in self.grid.tasks]
            means.append(_mean_of_all(found))
        return summarise(means)

    def _value(
        self,
        value: Callable[[Outcome], float | None],
        task: str,
        pattern: Pattern | None,
        arm: str,
        seed: int,
    ) -> float | None:
        """What one run gave, if it is finished."""
        run = self.outcomes.get(self._job(task, pattern, arm, seed))
        return None if run is None else value(run)

    def _job(self, task: str, pattern: Pattern | None, arm: str, seed: int) -> Job:
        """The job of an arm."""
        if arm == DENSE or pattern is None:
            return TeacherJob(task=task, seed=seed)
        return StudentJob(task=task, pattern=pattern, arm=arm, seed=seed)


def _score(run: Outcome) -> float | None:
    return run.score


def _gap(run: Outcome) -> float | None:
    return run.gap


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None unless every value is there."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found and len(found) == len(values) else None
