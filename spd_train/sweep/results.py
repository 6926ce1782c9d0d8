"""The results of a grid: means over seeds, gaps, and averages over tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import task_named
from spd_train.seeds import SeedSummary, summarise
from spd_train.sweep.grid import Grid
from spd_train.sweep.jobs import DENSE, Job, StudentJob, TeacherJob
from spd_train.sweep.outcomes import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """A grid, and the outcomes of its finished jobs.

    A recipe is one of the grid's, or ``dense`` for the teachers, which are the same for every
    pattern. A missing value is None.
    """

    grid: Grid
    outcomes: Mapping[Job, Outcome]

    @property
    def recipes(self) -> tuple[str, ...]:
        """``dense``, and the recipes of the grid."""
        return (DENSE, *self.grid.recipes)

    @property
    def patterns(self) -> tuple[Pattern | None, ...]:
        """The patterns of the grid; None stands for that of a grid of teachers alone."""
        return self.grid.patterns or (None,)

    @property
    def finished(self) -> int:
        """The number of finished jobs."""
        return len(self.outcomes)

    @property
    def total(self) -> int:
        """The number of jobs of the grid."""
        return len(self.grid.jobs())

    @property
    def has_students(self) -> bool:
        """Whether any student is finished."""
        return any(isinstance(job, StudentJob) for job in self.outcomes)

    def metric(self, task: str) -> str:
        """The main metric of a task."""
        return task_named(task).metrics[0]

    def of(self, task: str, pattern: Pattern | None, recipe: str) -> list[Outcome]:
        """The outcomes of the finished runs, seed by seed."""
        jobs = [self._job(task, pattern, recipe, seed) for seed in self.grid.seeds]
        return [self.outcomes[job] for job in jobs if job in self.outcomes]

    def score(self, task: str, pattern: Pattern | None, recipe: str) -> SeedSummary | None:
        """The main metric on dev, over the seeds."""
        return summarise([run.score for run in self.of(task, pattern, recipe)])

    def gap(self, task: str, pattern: Pattern | None, recipe: str) -> SeedSummary | None:
        """The main metric on train minus that on dev, over the seeds."""
        return summarise([run.gap for run in self.of(task, pattern, recipe)])

    def kept(self, task: str, pattern: Pattern | None, recipe: str) -> float | None:
        """Share of the dense score that the recipe keeps, over the seeds that have both scores."""
        pairs = []
        for seed in self.grid.seeds:
            sparse = self._value(_score, task, pattern, recipe, seed)
            dense = self._value(_score, task, pattern, DENSE, seed)
            if sparse is not None and dense is not None:
                pairs.append((sparse, dense))
        whole = sum(dense for _, dense in pairs)
        return sum(sparse for sparse, _ in pairs) / whole if whole > 0 else None

    def average_score(self, pattern: Pattern | None, recipe: str) -> SeedSummary | None:
        """The mean score over all tasks, over the seeds that have every task."""
        return self._average(_score, pattern, recipe)

    def average_gap(self, pattern: Pattern | None, recipe: str) -> SeedSummary | None:
        """The mean gap over all tasks, over the seeds that have every task."""
        return self._average(_gap, pattern, recipe)

    def average_kept(self, pattern: Pattern | None, recipe: str) -> float | None:
        """The mean over all tasks of the share kept; None unless every task has one."""
        by_task = [self.kept(task, pattern, recipe) for task in self.grid.tasks]
        shares = [share for share in by_task if share is not None]
        return sum(shares) / len(shares) if len(shares) == len(by_task) else None

    def _average(
        self, value: Callable[[Outcome], float | None], pattern: Pattern | None, recipe: str
    ) -> SeedSummary | None:
        """Means over all tasks, one a seed, summarised over the seeds."""
        means = []
        for seed in self.grid.seeds:
            by_task = [self._value(value, task, pattern, recipe, seed) for task in self.grid.tasks]
            means.append(_mean_of_all(by_task))
        return summarise(means)

    def _value(
        self,
        value: Callable[[Outcome], float | None],
        task: str,
        pattern: Pattern | None,
        recipe: str,
        seed: int,
    ) -> float | None:
        """A value of one run; None if the run is not finished."""
        run = self.outcomes.get(self._job(task, pattern, recipe, seed))
        return None if run is None else value(run)

    def _job(self, task: str, pattern: Pattern | None, recipe: str, seed: int) -> Job:
        """The job of a recipe, which is a teacher for ``dense``."""
        if recipe == DENSE or pattern is None:
            return TeacherJob(task=task, seed=seed)
        return StudentJob(task=task, pattern=pattern, recipe=recipe, seed=seed)


def _score(run: Outcome) -> float | None:
    return run.score


def _gap(run: Outcome) -> float | None:
    return run.gap


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None unless every value is present."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None
