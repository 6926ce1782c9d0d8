"""The expected time of a run, said once its first steps are timed.

Steps are counted exactly, and each is taken to last as long as the first few. A step of the student
also runs the teacher: one forward pass more than a step in which the teacher itself is trained, of
which a forward pass is about a third. Of the mask updates only the first is timed that early. It
prepares the others, so it is their upper bound. Scoring is not part of the estimate.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from spd_deploy.domain.spelling import counted, spelled_duration

STUDENT_STEP = 4 / 3  # in steps of the teacher's own training
_WARM_UPS, _TIMED = 2, 8
_WORTH_TELLING_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingWork:
    """The steps of a training, and how many of them update masks first."""

    steps: int
    updates: int = 0

    def seconds(self, step_s: float, update_s: float | None) -> float:
        """The time of all steps; mask updates count nothing where their time is not known."""
        return (self.steps - self.updates) * step_s + self.updates * (update_s or 0.0)

    def described(self, seconds: float, update_s: float | None) -> str:
        """Such as ``about 40 min (2700 steps with 12 mask updates, at most 6 min)``."""
        steps = counted(self.steps, "step")
        if self.updates:
            most = (
                "not timed yet"
                if update_s is None
                else f"at most {spelled_duration(self.updates * update_s)}"
            )
            steps += f" with {counted(self.updates, 'mask update')}, {most}"
        return f"about {spelled_duration(seconds)} ({steps})"


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterTrainings:
    """The trainings that follow the one at hand in the same command.

    Attributes:
        students: how many students.
        each: the work of each of them.
        relative_step: the time of their steps, in steps of the training at hand.
        runs: whole runs with other seeds, each as long as this one.
    """

    students: int = 0
    each: TrainingWork = TrainingWork(steps=0)
    relative_step: float = 1.0
    runs: int = 0


@dataclass(kw_only=True, slots=True)
class ExpectedTime:
    """Times the first steps of a training, and estimates the rest of the run once.

    Attributes:
        name: of the training, ``teacher`` or ``student``.
        left: the work of the training that is not done yet.
        later: what follows in the same command.
        clock: the time in seconds.
    """

    name: str
    left: TrainingWork
    later: LaterTrainings
    clock: Callable[[], float] = time.perf_counter
    _last_s: float = field(init=False)
    _quick_s: list[float] = field(init=False, default_factory=list)
    _update_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Start the clock: the first step begins now."""
        self._last_s = self.clock()

    def after_step(self, *, updated: bool) -> str | None:
        """Note that a step is done, and whether it updated masks.

        Returns:
            The estimate, as a line for the user, after the last step that is timed for it; None
            after all others, and of a run that takes less than a minute.
        """
        now = self.clock()
        seconds, self._last_s = now - self._last_s, now
        if updated:
            self._update_s = self._update_s or seconds
            return None
        self._quick_s.append(seconds)
        if len(self._quick_s) != _WARM_UPS + _TIMED:
            return None
        return self._line(sum(self._quick_s[_WARM_UPS:]) / _TIMED)

    def _line(self, step_s: float) -> str | None:
        """The estimate where a step without a mask update takes ``step_s``."""
        later, update_s = self.later, self._update_s
        own_s = self.left.seconds(step_s, update_s)
        each_s = later.each.seconds(step_s * later.relative_step, update_s)
        total_s = (own_s + later.students * each_s) * (1 + later.runs)
        if total_s < _WORTH_TELLING_S:
            return None
        parts = [f"expected time: {self.name} {self.left.described(own_s, update_s)}"]
        if later.students:
            parts.append(f"then {self._students} {later.each.described(each_s, update_s)}")
        if later.runs:
            parts.append(f"{counted(later.runs, 'more seed')} of the same")
        if len(parts) > 1:
            parts.append(f"in all about {spelled_duration(total_s)}, and the scoring")
        return "; ".join(parts)

    @property
    def _students(self) -> str:
        """The later students: ``the student``, ``2 students, each``, ``2 more students, each``."""
        count, another = self.later.students, self.name == "student"
        if count == 1:
            return "one more student" if another else "the student"
        return f"{count} {'more ' if another else ''}students, each"
