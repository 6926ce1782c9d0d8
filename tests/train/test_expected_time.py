"""The time that a run is expected to take, from its first steps."""

from collections.abc import Iterator
from itertools import accumulate

from spd_train.training.expected_time import (
    STUDENT_STEP,
    ExpectedTime,
    LaterTrainings,
    TrainingWork,
)


def lines_of(
    name: str,
    left: TrainingWork,
    later: LaterTrainings,
    *,
    update_s: float | None = None,
    step_s: float = 1.0,
) -> Iterator[str | None]:
    """What is said after an update of the masks, if there is one, and after each of 20 steps."""
    first = [] if update_s is None else [update_s]
    times = accumulate([0.0, *first, 9.0, 9.0, *[step_s] * 18])
    expected = ExpectedTime(name=name, left=left, later=later, clock=lambda: next(times))
    for i in range(len(first) + 20):
        yield expected.after_step(updated=i < len(first))


def line_of(name: str, left: TrainingWork, later: LaterTrainings, **seconds: float) -> str | None:
    found = [line for line in lines_of(name, left, later, **seconds) if line is not None]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_teacher_tells_of_its_students() -> None:
    """Their steps take a third longer, and how long their mask updates take is not known yet."""
    later = LaterTrainings(
        students=2, each=TrainingWork(steps=912, updates=12), relative_step=STUDENT_STEP
    )

    assert line_of("teacher", TrainingWork(steps=600), later) == (
        "expected time: teacher about 10 min (600 steps); then 2 students, each about 20 min "
        "(912 steps with 12 mask updates, not timed yet); in all about 50 min, and the scoring"
    )


def test_a_student_tells_of_its_mask_updates() -> None:
    """The first one is the longest, so it bounds the others, and those of later students."""
    work = TrainingWork(steps=912, updates=12)
    later = LaterTrainings(students=1, each=work)

    assert line_of("student", work, later, update_s=50.0) == (
        "expected time: student about 25 min (912 steps with 12 mask updates, at most 10 min); "
        "then one more student about 25 min (912 steps with 12 mask updates, at most 10 min); "
        "in all about 50 min, and the scoring"
    )


def test_seeds_multiply_the_run() -> None:
    """Each of them takes as long as the first."""
    work = TrainingWork(steps=600)

    assert line_of("teacher", work, LaterTrainings(runs=2)) == (
        "expected time: teacher about 10 min (600 steps); 2 more seeds of the same; "
        "in all about 30 min, and the scoring"
    )


def test_a_short_run_tells_nothing() -> None:
    """Below a minute the progress bar says enough."""
    assert line_of("teacher", TrainingWork(steps=59), LaterTrainings()) is None
    assert line_of("teacher", TrainingWork(steps=60), LaterTrainings()) is not None


def test_the_first_two_steps_are_no_measure() -> None:
    """They warm the machine up: only the eight steps after them count."""
    said = list(lines_of("teacher", TrainingWork(steps=600), LaterTrainings()))

    assert [i for i, line in enumerate(said) if line] == [9]
    assert said[9] == "expected time: teacher about 10 min (600 steps)"
